"""The transformers side of the backbones: models loaded by name, both kinds saved as folders.

Importing this module registers the small residual network, and a linear head on CLIP's image
embeddings, with transformers' Auto classes.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BaseImageProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME

from raysynth.classify.backbone import SmallNetwork, initialise
from raysynth.config import ClassifierConfig
from raysynth.errors import ModelError
from raysynth.models.loading import load_or_explain, quiet_transformers


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
        return _output(self.classifier(embedded.image_embeds), labels)


def _output(logits: Tensor, labels: Tensor | None) -> ImageClassifierOutputWithNoAttention:
    loss = nn.functional.cross_entropy(logits.float(), labels) if labels is not None else None
    return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)


AutoConfig.register(ClipClassifierConfig.model_type, ClipClassifierConfig, exist_ok=True)
AutoModelForImageClassification.register(ClipClassifierConfig, ClipClassifier, exist_ok=True)
AutoConfig.register(SmallResNetConfig.model_type, SmallResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(SmallResNetConfig, SmallResNet, exist_ok=True)


def load_model(classifier: ClassifierConfig, label_names: tuple[str, ...]) -> Any:
    """The transformers model that the configuration names, with a fresh head for these labels.

    Raises
    ------
    ModelError
        When transformers cannot load it.
    """
    name = os.path.expanduser(classifier.backbone)
    quiet_transformers()
    try:
        config = AutoConfig.from_pretrained(
            name, num_labels=len(label_names), **_names(label_names)
        )
        if isinstance(config, CLIPConfig):
            return _load_clip(classifier, name, config, label_names)
        if not classifier.starts_pretrained:
            return AutoModelForImageClassification.from_config(config)
        return AutoModelForImageClassification.from_pretrained(
            name,
            config=config,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=torch.float32,  # trained as such, whatever the file has
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"classifier.backbone: transformers cannot load {name!r} for image classification "
            f"({str(error).splitlines()[0]}). Fix: name a hub id or a save_pretrained folder of "
            "such a model, with safetensors weights"
        ) from None


def _load_clip(
    classifier: ClassifierConfig, name: str, config: CLIPConfig, label_names: tuple[str, ...]
) -> ClipClassifier:
    shape = config.vision_config.to_dict()
    del shape["model_type"]
    model = ClipClassifier(ClipClassifierConfig(**shape | _names(label_names)))
    if classifier.starts_pretrained:
        # The whole CLIP: its image tower alone would be read with a complaint about the rest.
        whole = CLIPModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
        model.clip.vision_model = whole.vision_model
        model.clip.visual_projection = whole.visual_projection
    return model


def normalisation(classifier: ClassifierConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the named backbone's own preprocessing, shares of 255.

    Those of [-1, 1] for a folder that does not say; 0 and 1 for one that normalises nothing.

    Raises
    ------
    ModelError
        When transformers cannot load what is there.
    """
    source = os.path.expanduser(classifier.backbone)
    files = (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)
    says = any(os.path.exists(f"{source}/{name}") for name in files)
    if os.path.isdir(source) and not says:
        return [0.5] * 3, [0.5] * 3
    known = load_or_explain(
        "classifier.backbone's image processor",
        source,
        lambda: transformers.AutoImageProcessor.from_pretrained(source),
    )
    if not getattr(known, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(known.image_mean), list(known.image_std)


def save(
    model: nn.Module,
    classifier: ClassifierConfig,
    label_names: tuple[str, ...],
    size: int,
    folder: str,
) -> None:
    """Config and safetensors weights in a local folder; `model` is the one that was trained."""
    if isinstance(model, SmallNetwork):
        shape = SmallResNetConfig(classifier.widths, image_size=size, **_names(label_names))
        whole = SmallResNet(shape)
        whole.network.load_state_dict(model.state_dict())
        model = whole
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(folder)


def image_processor(mean: list[float], std: list[float], size: int) -> BaseImageProcessor:
    """Preprocessing with this normalisation, to `size` x `size` pixels."""
    # The Pillow variant needs no torchvision; older transformers have it under the plain name.
    name = "ViTImageProcessorPil"
    kind = getattr(transformers, name if hasattr(transformers, name) else "ViTImageProcessor")
    return kind(size={"height": size, "width": size}, image_mean=mean, image_std=std)


def _names(label_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
