"""What a diffusers scheduler's configuration says of its base; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysynth.errors import ModelError

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


def refuse_moving(settings: Mapping[str, Any]) -> None:
    """Refuse levels that follow the size of an image; raises ModelError."""
    if settings.get("use_dynamic_shifting"):
        raise ModelError(
            "base.name: its scheduler has use_dynamic_shifting=true, levels that follow the size "
            "of an image; expected one shift for all. Fix: in scheduler_config.json "
            "use_dynamic_shifting=false, and as `shift` that of the base's own size"
        )
