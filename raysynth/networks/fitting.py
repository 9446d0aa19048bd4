"""Whether a folder's model can be a backbone, by its shape and its files' headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPConfig,
    PreTrainedModel,
)

from raysynth.models.architecture import (
    NO_CODE,
    build,
    check_clip_weights,
    check_transformers,
    of_layers,
    refuse_code,
)
from raysynth.models.headers import read_config
from raysynth.networks.linear import other_size, several_heads
from raysynth.networks.pretrained import KEY, at_size, heads_of

MARKED = 1009
"""A number of labels that no other layer has outputs, to tell a model's heads."""


def check_model(folder: str, size: int | None, pretrained: bool) -> None:
    """Refuse a folder's model by its shape and its files' headers; nothing is loaded or computed.

    Parameters
    ----------
    size : side of the images in pixels; None: not known yet.
    pretrained : its weights are used.

    Raises
    ------
    ModelError
        No image classification model that transformers has itself, or not all of its weights;
        several layers make its logits, or it fails at this size but not at its own.
    """
    place = Path(folder)
    refuse_code(KEY, place, read_config(KEY, place / "config.json"))
    config = build(
        KEY, place, lambda: AutoConfig.from_pretrained(folder, num_labels=MARKED, **NO_CODE)
    )
    if isinstance(config, CLIPConfig):  # see ClipClassifier
        if pretrained:
            check_clip_weights(KEY, place)
        return
    model = build(
        KEY,
        place,
        lambda: AutoModelForImageClassification.from_config(config, **NO_CODE).eval(),
    )
    if pretrained:
        heads = of_layers(heads_of(model, MARKED))
        check_transformers(KEY, place, model, config, heads)
    _check_calls(model, config, size)


def _check_calls(model: PreTrainedModel, config: Any, size: int | None) -> None:
    """Refuse several heads, and a size that the model does not take."""
    shape = getattr(config, "vision_config", config)
    name, calls = type(model).__name__, _calls_of_heads(model)
    try:
        own = int(np.max(getattr(shape, "image_size", size or 224)))
        with torch.device("meta"):
            model(pixel_values=torch.empty(1, 3, own, own))
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError, ImportError):
        return  # loading explains it, or it cannot be told without weights
    if len(calls) > 1:
        raise several_heads(name)
    try:
        with torch.device("meta"):
            at_size(model, size or own)(pixel_values=torch.empty(1, 3, size or own, size or own))
    except (ValueError, RuntimeError) as error:
        raise other_size(name, size or own, error) from None


def _calls_of_heads(model: nn.Module) -> list[nn.Module]:
    """The linear layers of MARKED outputs, once for every time that they are called."""
    calls: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == MARKED:
            module.register_forward_hook(lambda module, *_: calls.append(module))
    return calls
