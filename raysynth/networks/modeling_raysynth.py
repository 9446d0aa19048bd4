"""Models of ours as transformers knows them; this file is copied beside their weights.

It imports torch, transformers and `residual` alone, so that a shipped folder loads without
raysynth: `from_pretrained(folder, trust_remote_code=True)` runs the copies. Wherever raysynth is
imported, `networks.saved` has registered the classes, and no code of a folder is run.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from .residual import ResidualNetwork, initialise  # relative: the copies lie side by side


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


class SmallResNet(PreTrainedModel):
    """The small residual network as a `PreTrainedModel`."""

    config_class = SmallResNetConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"

    def __init__(self, config: SmallResNetConfig) -> None:
        """Random weights of the given shape."""
        super().__init__(config)
        self.network = ResidualNetwork(config.widths, config.num_channels, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        initialise(module)

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """[B, 3, H, W] -> logits [B, K]; with `labels` [B], also their cross-entropy."""
        return _output(self.network(pixel_values), labels)


class ClipClassifierConfig(CLIPVisionConfig):
    """Shape of a CLIP image tower under a linear head."""

    model_type = "raysynth_clip"


class ClipClassifier(PreTrainedModel):
    """A linear head on CLIP's image embeddings (linear probe, Radford et al. 2021, section 3.2).

    transformers' own `CLIPForImageClassification` takes the mean of the patches instead, which CLIP
    was not trained to make a description of the image.
    """

    config_class = ClipClassifierConfig
    base_model_prefix = "clip"
    main_input_name = "pixel_values"

    def __init__(self, config: ClipClassifierConfig) -> None:
        """Random weights of the given shape."""
        super().__init__(config)
        self.clip = CLIPVisionModelWithProjection(config)
        self.classifier = nn.Linear(config.projection_dim, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """[B, 3, H, W] -> logits [B, K]; with `labels` [B], also their cross-entropy."""
        resized = pixel_values.shape[-1] != self.config.image_size
        embedded = self.clip(pixel_values=pixel_values, interpolate_pos_encoding=resized)
        features = embedded.image_embeds
        if getattr(self.config, "normalised", False):  # CLIP-LoRA's head
            features = nn.functional.normalize(features, dim=-1)
        return _output(self.classifier(features), labels)


def _output(logits: Tensor, labels: Tensor | None) -> ImageClassifierOutputWithNoAttention:
    loss = nn.functional.cross_entropy(logits.float(), labels) if labels is not None else None
    return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


for _kind in (SmallResNetConfig, ClipClassifierConfig):
    _kind.register_for_auto_class()
for _kind in (SmallResNet, ClipClassifier):
    _kind.register_for_auto_class("AutoModelForImageClassification")
