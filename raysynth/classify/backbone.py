"""Backbones: a small residual network, or any transformers image classification model.

Both are `PreTrainedModel`s with a linear head on pooled features, saved by `save_pretrained`. The
small one is registered with transformers' Auto classes when this module is imported.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from raysynth.config import ClassifierConfig
from raysynth.errors import ModelError

SMALL = "small"


class SmallResNetConfig(PretrainedConfig):
    """Shape of the small residual network: `widths` are the channels of its stages."""

    model_type = "raysynth_resnet"

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128),
        num_channels: int = 3,
        image_size: int = 32,
        **kwargs: Any,
    ) -> None:
        """`image_size`: side of the input in pixels, for the record: any side works."""
        self.widths = tuple(widths)
        self.num_channels = num_channels
        self.image_size = image_size
        super().__init__(**kwargs)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, the basic block)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        """Channels in and out; `stride` of the first convolution."""
        super().__init__()
        self.convolution1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.convolution2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        hidden = torch.relu(self.norm1(self.convolution1(x)))
        return torch.relu(self.norm2(self.convolution2(hidden)) + self.shortcut(x))


class SmallResNet(PreTrainedModel):
    """Residual network for small images: a strided stem, one block per width, mean pooling."""

    config_class = SmallResNetConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallResNetConfig) -> None:
        """Random weights of the given shape."""
        super().__init__(config)
        first = config.widths[0]
        self.stem = nn.Conv2d(config.num_channels, first, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        inside = (first, *config.widths[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(before, width, 1 if stage == 0 else 2)
                for stage, (before, width) in enumerate(zip(inside, config.widths, strict=True))
            )
        )
        self.classifier = nn.Linear(config.widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """[B, 3, H, W] -> logits [B, K]; with `labels` [B], also their cross-entropy."""
        hidden = self.blocks(torch.relu(self.norm(self.stem(pixel_values))))
        logits = self.classifier(hidden.mean(dim=(2, 3)))
        loss = nn.functional.cross_entropy(logits.float(), labels) if labels is not None else None
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


AutoConfig.register(SmallResNetConfig.model_type, SmallResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(SmallResNetConfig, SmallResNet, exist_ok=True)


def check_backbone(classifier: ClassifierConfig) -> None:
    """Refuse, without loading weights, a backbone folder that transformers cannot read."""
    name = classifier.backbone
    looks_local = os.path.isabs(name) or name.startswith((".", "~"))
    if name == SMALL or (not looks_local and not os.path.isdir(name)):
        return
    if not os.path.isfile(os.path.join(os.path.expanduser(name), "config.json")):
        raise ModelError(
            f"classifier.backbone: no config.json in {name}; expected `small`, a hub id or a "
            "folder written by save_pretrained. Fix: check the path"
        )


def build_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The backbone with a fresh head for these labels.

    Random parts come from torch's global generator. Weights are read from safetensors only.

    Raises
    ------
    ModelError
        When transformers cannot load the named model.
    """
    labels: dict[str, Any] = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
    if classifier.backbone == SMALL:
        return SmallResNet(SmallResNetConfig(widths=classifier.widths, image_size=size, **labels))
    name = os.path.expanduser(classifier.backbone)
    try:
        config = AutoConfig.from_pretrained(name, num_labels=len(label_names), **labels)
        if not classifier.pretrained:
            return AutoModelForImageClassification.from_config(config)
        return AutoModelForImageClassification.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"classifier.backbone: transformers cannot load {name!r} for image classification "
            f"({str(error).splitlines()[0]}). Fix: name a hub id or a save_pretrained folder of "
            "such a model, with safetensors weights"
        ) from None


def linear_head(model: nn.Module, classes: int) -> nn.Linear:
    """The linear layer that makes the logits: the last one with as many outputs as labels.

    Raises
    ------
    ModelError
        When there is none, so that no head could be refitted on frozen features.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    if not linear:
        raise ModelError(
            f"classifier.backbone: {type(model).__name__} has no linear layer with {classes} "
            "outputs, so stage 2 has no head to fit. Fix: choose a model with a linear head"
        )
    return linear[-1]
