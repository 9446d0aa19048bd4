"""Models of ours, known to transformers' Auto classes, and both kinds saved as folders.

Importing this module registers the small residual network, a linear head on CLIP's image
embeddings, and EfficientNet-Lite0 with transformers' Auto classes.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from raysynth.models.modeling_efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
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
AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModelForImageClassification.register(EfficientNetLiteConfig, EfficientNetLite, exist_ok=True)


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


def label_settings(label_names: tuple[str, ...]) -> dict[str, Any]:
    """Labels as transformers' configurations hold them."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
