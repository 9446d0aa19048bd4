"""Models of ours, known to transformers' Auto classes, and both kinds saved as folders.

Importing this module registers the small residual network, and a linear head on CLIP's image
embeddings, with transformers' Auto classes.
"""

from __future__ import annotations

from typing import Any, cast

import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
)

from raysynth.networks.modeling_raysynth import (
    ClipClassifier,
    ClipClassifierConfig,
    SmallResNet,
    SmallResNetConfig,
)
from raysynth.networks.settings import ClassifierConfig
from raysynth.networks.small import SmallNetwork

AutoConfig.register(ClipClassifierConfig.model_type, ClipClassifierConfig, exist_ok=True)
AutoModelForImageClassification.register(ClipClassifierConfig, ClipClassifier, exist_ok=True)
AutoConfig.register(SmallResNetConfig.model_type, SmallResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(SmallResNetConfig, SmallResNet, exist_ok=True)


def save(
    model: nn.Module,
    classifier: ClassifierConfig,
    label_names: tuple[str, ...],
    size: int,
    folder: str,
) -> None:
    """Config and safetensors weights in a local folder; `model` is the one that was trained."""
    if isinstance(model, SmallNetwork):
        shape = SmallResNetConfig(classifier.widths, image_size=size, **label_settings(label_names))
        whole = SmallResNet(shape)
        whole.network.load_state_dict(model.state_dict())
        model = whole
    elif not isinstance(model, PreTrainedModel):
        model = cast(Any, model).shipped(label_names)
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(folder)


def image_processor(mean: list[float], std: list[float], size: int) -> BaseImageProcessor:
    """Preprocessing with this normalisation: the centre square at `size` x `size` pixels, bicubic.

    It resizes before it crops where `tables.decode_images` crops first: equal but for rounding.
    """
    # The Pillow variant needs no torchvision; older transformers have it under the plain name.
    name = "CLIPImageProcessorPil"
    kind = getattr(transformers, name if hasattr(transformers, name) else "CLIPImageProcessor")
    return kind(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=mean,
        image_std=std,
    )


def label_settings(label_names: tuple[str, ...]) -> dict[str, Any]:
    """Labels as transformers' configurations hold them."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
