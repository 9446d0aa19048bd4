"""EfficientNet-Lite0 as transformers knows it; this file is copied beside shipped weights.

It imports torch and transformers alone, so that a shipped folder loads without raysynth:
`from_pretrained(folder, trust_remote_code=True)` runs the copy.

Tan and Le 2019 (EfficientNet, arXiv 1905.11946) in the form of TensorFlow's `efficientnet/lite`:
without squeeze-and-excitation, ReLU6 for swish, stem and head of one width, TensorFlow's padding.
Dropout and stochastic depth are left out: trainings here are short.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

STEM, FEATURES = 32, 1280
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, side of the kernel, stride of the first one, expansion, channels out (their table 1)."""
EPSILON = 1e-3
"""Of the normalisations."""


class EfficientNetLiteConfig(PretrainedConfig):
    """`image_size`: side of the input in pixels, for the record: any side works."""

    model_type = "raysynth_efficientnet_lite"

    def __init__(self, image_size: int = 224, **kwargs: Any) -> None:
        """The shape is EfficientNet-Lite0's; labels are the base class's."""
        self.image_size = image_size
        super().__init__(**kwargs)


class SameConv(nn.Conv2d):
    """A convolution, without bias, padded as TensorFlow's `SAME`: where odd, one more at the end.

    Position i of a strided one so sees other pixels than under torch's symmetric padding.
    """

    def __init__(
        self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        """Channels in and out, sides of kernel and stride."""
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]
        )
        if height % 2 == width % 2 == 0:
            padding = (height // 2, width // 2)
            return F.conv2d(x, self.weight, None, stride, padding, groups=self.groups)
        sides = (width // 2, width - width // 2, height // 2, height - height // 2)
        return F.conv2d(F.pad(x, sides), self.weight, None, stride, groups=self.groups)


class Block(nn.Module):
    """Widen, convolve each channel by itself, narrow; a shortcut where the shape stays."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expand: int) -> None:
        """Channels in and out; `expand`: how many times wider it is within."""
        super().__init__()
        inner = inside * expand
        self.expand = expand > 1
        if self.expand:
            self.expand_conv = SameConv(inside, inner, 1)
            self.bn0 = nn.BatchNorm2d(inner, EPSILON)
        self.depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self.bn1 = nn.BatchNorm2d(inner, EPSILON)
        self.project_conv = SameConv(inner, outside, 1)
        self.bn2 = nn.BatchNorm2d(outside, EPSILON)
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, ceil(H / stride), ceil(W / stride)]."""
        hidden = F.relu6(self.bn0(self.expand_conv(x))) if self.expand else x
        hidden = F.relu6(self.bn1(self.depthwise_conv(hidden)))
        hidden = self.bn2(self.project_conv(hidden))
        return hidden + x if self.shortcut else hidden


class EfficientNetLite(PreTrainedModel):
    """EfficientNet-Lite0 under a linear head."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        """Random weights."""
        super().__init__(config)
        self.conv_stem = SameConv(3, STEM, 3, 2)
        self.bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks, inside = [], STEM
        for repeats, kernel, stride, expand, outside in STAGES:
            for position in range(repeats):
                first = stride if position == 0 else 1
                blocks.append(Block(inside, outside, kernel, first, expand))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = SameConv(inside, FEATURES, 1)
        self.bn1 = nn.BatchNorm2d(FEATURES, EPSILON)
        self.fc = nn.Linear(FEATURES, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Random weights of convolutions as theirs; others keep torch's."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] normalised images -> [B, 1280]."""
        hidden = F.relu6(self.bn0(self.conv_stem(pixel_values)))
        hidden = F.relu6(self.bn1(self.conv_head(self.blocks(hidden))))
        return hidden.mean(dim=(2, 3))

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """[B, 3, H, W] -> logits [B, K]; with `labels` [B], also their cross-entropy."""
        logits = self.fc(self.get_image_features(pixel_values))
        loss = F.cross_entropy(logits.float(), labels) if labels is not None else None
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


EfficientNetLiteConfig.register_for_auto_class()
EfficientNetLite.register_for_auto_class("AutoModelForImageClassification")
