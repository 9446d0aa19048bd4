"""Models of ours as transformers' Auto classes know them, and both kinds saved as folders.

Importing this module registers the small residual network, and a linear head on CLIP's image
embeddings, with transformers' Auto classes.
"""

from __future__ import annotations

from typing import Any, cast

import transformers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BaseImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from raysynth.networks.settings import ClassifierConfig
from raysynth.networks.small import SmallNetwork, initialise


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
        self.network = SmallNetwork(config.widths, config.num_channels, config.num_labels)
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
        if getattr(self.config, "normalised", False):  # see `networks.clip_lora`
            features = nn.functional.normalize(features, dim=-1)
        return _output(self.classifier(features), labels)


def _output(logits: Tensor, labels: Tensor | None) -> ImageClassifierOutputWithNoAttention:
    loss = nn.functional.cross_entropy(logits.float(), labels) if labels is not None else None
    return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


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
