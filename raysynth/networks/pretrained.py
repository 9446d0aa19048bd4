"""transformers' image classification models as backbones: loaded by name, with a head of ours.

What shipped classifiers' cards import is here too: importing this module registers the models of
`raysynth.networks.saved` with transformers' Auto classes.
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
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPConfig,
    CLIPModel,
    PretrainedConfig,
    PreTrainedModel,
)

from raysynth.errors import ModelError
from raysynth.models.architecture import FAULTS, NO_CODE, of_layers
from raysynth.models.efficientnet_lite import MEAN, STD, load_lite
from raysynth.models.headers import read_config, reason_of
from raysynth.models.loading import complete, load_or_explain, quiet_transformers
from raysynth.models.mirror import located
from raysynth.models.modeling_efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from raysynth.models.settings import LITE
from raysynth.models.sources import PROCESSORS, pixel_statistics, variant_of
from raysynth.networks.modeling_raysynth import (
    ClipClassifier,
    ClipClassifierConfig,
    SmallResNet,
    SmallResNetConfig,
)
from raysynth.networks.saved import label_settings
from raysynth.networks.settings import ClassifierConfig

__all__ = [
    "ClipClassifier",
    "ClipClassifierConfig",
    "EfficientNetLite",
    "EfficientNetLiteConfig",
    "SmallResNet",
    "SmallResNetConfig",
    "at_size",
    "heads_of",
    "load_model",
    "normalisation",
]
KEY = "classifier.backbone"
"""The configuration key that messages name."""


def load_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The transformers model that the configuration names, with a fresh head for these labels.

    Position embeddings that were learnt at another side than `size` pixels are resized, so that the
    model, saved, takes images of `size` without being told.

    Raises
    ------
    ModelError
        When transformers cannot load it; `efficientnet_lite0` without its package.
    """
    name = located(classifier.backbone, KEY)
    quiet_transformers()
    if name == LITE:
        return _load_lite(classifier, label_names, size)
    try:
        return _load(classifier, name, label_names, size)
    except FAULTS as error:
        raise ModelError(
            f"{KEY}: transformers cannot load {name!r} for image classification "
            f"({reason_of(error)}). Fix: name a hub id or a save_pretrained folder of "
            "such a model, with safetensors weights"
        ) from None


def _load_lite(
    classifier: ClassifierConfig, label_names: tuple[str, ...], size: int
) -> EfficientNetLite:
    settings = label_settings(label_names) | {"image_size": size}
    if classifier.starts_pretrained:
        return load_lite(KEY, settings)
    return EfficientNetLite(EfficientNetLiteConfig(**settings))


def _load(
    classifier: ClassifierConfig, name: str, label_names: tuple[str, ...], size: int
) -> PreTrainedModel:
    hub = _hub(name, classifier)
    config = AutoConfig.from_pretrained(
        name, num_labels=len(label_names), **label_settings(label_names), **hub
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
    heads = of_layers(heads_of(found[0], len(label_names)))
    return at_size(complete(KEY, name, found, heads), size)


def _load_clip(
    classifier: ClassifierConfig, name: str, config: CLIPConfig, label_names: tuple[str, ...]
) -> ClipClassifier:
    shape = config.vision_config.to_dict()
    del shape["model_type"]
    model = ClipClassifier(ClipClassifierConfig(**shape | label_settings(label_names)))
    if classifier.starts_pretrained:
        # The whole CLIP: its image tower alone would be read with a complaint about the rest.
        whole = read_clip(classifier, name)
        model.clip.vision_model = whole.vision_model
        model.clip.visual_projection = whole.visual_projection
    return model


def read_clip(classifier: ClassifierConfig, name: str) -> CLIPModel:
    """A whole CLIP with all of its weights, by folder or hub id."""
    found = CLIPModel.from_pretrained(
        name,
        use_safetensors=True,
        variant=variant_of(Path(name)),
        dtype=torch.float32,
        output_loading_info=True,
        **_hub(name, classifier),
    )
    whole: CLIPModel = complete(KEY, name, found)
    return whole


def _hub(name: str, classifier: ClassifierConfig) -> dict[str, Any]:
    return NO_CODE | ({} if os.path.isdir(name) else {"revision": classifier.revision})


def heads_of(model: nn.Module, classes: int) -> list[str]:
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


def normalisation(classifier: ClassifierConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the named backbone's own preprocessing, shares of 255.

    timm's are in its config.json. Those of [-1, 1] for a folder that does not say; 0 and 1 for one
    that normalises nothing.

    Raises
    ------
    ModelError
        When transformers cannot load what is there, or it has no mean of three channels.
    """
    source = located(classifier.backbone, KEY)
    if source == LITE:
        return list(MEAN), list(STD)
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
