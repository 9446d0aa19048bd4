"""What a diffusers scheduler's configuration says of its base; nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FLOW_MATCHING = "FlowMatch"
"""Part of the names of diffusers' classes whose bases predict a flow, without saying so."""
FLOW = "flow_prediction"


def kind_of_prediction(name: Any, settings: Mapping[str, Any]) -> Any:
    """diffusers' name of what a base predicts.

    Parameters
    ----------
    name : the scheduler's class.
    settings : its configuration.
    """
    return FLOW if FLOW_MATCHING in str(name) else settings.get("prediction_type", "epsilon")


def shift_of(name: Any, settings: Mapping[str, Any]) -> float:
    """How far a flow's levels are moved towards noise, s -> f s / (1 + (f - 1) s); 1: not at all.

    Esser et al. 2024 (arXiv 2403.03206), section 5.3.2.
    """
    return float(settings.get("shift" if FLOW_MATCHING in str(name) else "flow_shift") or 1.0)


def settled(scheduler: Any, positions: int) -> Any:
    """A scheduler whose shift follows an image's size, as one for images of so many patches.

    The shift's logarithm is a line through two sizes, as diffusers' pipelines draw it.
    """
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return scheduler
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    first, last = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = first + (last - first) * (positions - low) / (high - low)
    shift = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
    return type(scheduler).from_config(config, use_dynamic_shifting=False, shift=shift)
