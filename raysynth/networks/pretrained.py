"""The transformers side of the backbones: models loaded by name, both kinds saved as folders.

Importing this module registers the small residual network, and a linear head on CLIP's image
embeddings, with transformers' Auto classes.
"""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
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

from raysynth.errors import ModelError
from raysynth.models.architecture import (
    FAULTS,
    NO_CODE,
    build,
    check_clip_weights,
    check_transformers,
    of_layers,
    refuse_code,
)
from raysynth.models.headers import read_config, reason_of
from raysynth.models.loading import complete, load_or_explain, quiet_transformers
from raysynth.models.sources import PROCESSORS, pixel_statistics, variant_of
from raysynth.networks.linear import other_size, several_heads
from raysynth.networks.settings import ClassifierConfig
from raysynth.networks.small import SmallNetwork, initialise

KEY = "classifier.backbone"
"""The configuration key that messages name."""
MARKED = 1009
"""A number of labels that no other layer has outputs, to tell a model's heads."""


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


def load_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The transformers model that the configuration names, with a fresh head for these labels.

    Position embeddings that were learnt at another side than `size` pixels are resized, so that the
    model, saved, takes images of `size` without being told.

    Raises
    ------
    ModelError
        When transformers cannot load it.
    """
    name = os.path.expanduser(classifier.backbone)
    quiet_transformers()
    hub = _hub(name, classifier)

    def load() -> Any:
        config = AutoConfig.from_pretrained(
            name, num_labels=len(label_names), **_names(label_names), **hub
        )
        if isinstance(config, CLIPConfig):
            return _load_clip(classifier, name, config, label_names)
        if not classifier.starts_pretrained:
            return at_size(AutoModelForImageClassification.from_config(config, **NO_CODE), size)
        found = AutoModelForImageClassification.from_pretrained(
            name,
            config=config,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            variant=variant_of(Path(name)),
            dtype=torch.float32,  # trained as such, whatever the file has
            output_loading_info=True,
            **hub,
        )
        heads = of_layers(_heads(found[0], len(label_names)))
        return at_size(complete(KEY, name, found, heads), size)

    try:
        return load()
    except FAULTS as error:
        raise ModelError(
            f"{KEY}: transformers cannot load {name!r} for image classification "
            f"({reason_of(error)}). Fix: name a hub id or a save_pretrained folder of "
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
        found = CLIPModel.from_pretrained(
            name,
            use_safetensors=True,
            variant=variant_of(Path(name)),
            dtype=torch.float32,
            output_loading_info=True,
            **_hub(name, classifier),
        )
        whole = complete(KEY, name, found)
        model.clip.vision_model = whole.vision_model
        model.clip.visual_projection = whole.visual_projection
    return model


def _hub(name: str, classifier: ClassifierConfig) -> dict[str, Any]:
    return NO_CODE | ({} if os.path.isdir(name) else {"revision": classifier.revision})


def _heads(model: nn.Module, classes: int) -> list[str]:
    """Names of the linear layers with as many outputs as classes."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]


def at_size(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """The model for images of `size` pixels, its position embeddings resized as it does itself.

    A model that takes any size, or has no such embeddings, is returned as it is.
    """
    resized = {
        f"{name}.position_embeddings": module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "position_embeddings", None), nn.Parameter)
        and hasattr(module, "interpolate_pos_encoding")
    }
    asks = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    known = getattr(model.config, "image_size", size)
    if not asks or not resized or np.all(np.asarray(known) == size):
        return model
    config = copy.deepcopy(model.config)
    config.image_size = size
    other = type(model)(config)
    shapes, state = other.state_dict(), model.state_dict()
    for key, module in resized.items():
        state[key] = module.interpolate_pos_encoding(torch.empty_like(shapes[key]), size, size)
    other.load_state_dict(state)
    return other


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
        heads = of_layers(_heads(model, MARKED))
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


def normalisation(classifier: ClassifierConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the named backbone's own preprocessing, shares of 255.

    timm's are in its config.json. Those of [-1, 1] for a folder that does not say; 0 and 1 for one
    that normalises nothing.

    Raises
    ------
    ModelError
        When transformers cannot load what is there, or it has no mean of three channels.
    """
    source = os.path.expanduser(classifier.backbone)
    hub = _hub(source, classifier)
    if os.path.isdir(source) and not any(os.path.exists(f"{source}/{n}") for n in PROCESSORS):
        found = read_config(KEY, Path(source) / "config.json")
        if "pretrained_cfg" not in found:
            return [0.5] * 3, [0.5] * 3
        return _of_timm(found["pretrained_cfg"], source)
    what = f"{KEY}'s image processor"
    if not os.path.isdir(source):
        # timm's processor is its config.json, and its class would need torchvision.
        config, _ = load_or_explain(
            what, source, lambda: PretrainedConfig.get_config_dict(source, **hub)
        )
        if "pretrained_cfg" in config:
            return _of_timm(config["pretrained_cfg"], source)
    known = load_or_explain(
        what, source, lambda: transformers.AutoImageProcessor.from_pretrained(source, **hub)
    )
    if not getattr(known, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    names = ("image_mean", "image_std")
    own = {name: getattr(known, name, None) for name in names}
    mean, std = pixel_statistics(KEY, own, source)
    return list(mean), list(std)


def _of_timm(settings: Any, source: str) -> tuple[list[float], list[float]]:
    found = settings if isinstance(settings, dict) else {}
    own = {"image_mean": found.get("mean"), "image_std": found.get("std")}
    mean, std = pixel_statistics(KEY, own, source)
    return list(mean), list(std)


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


def _names(label_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
