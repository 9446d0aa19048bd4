"""Backbones: a small residual network, or any transformers image classification model.

Both have a linear head on pooled features. Importing transformers takes seconds of every worker,
so only `raysynth.classify.pretrained` does, which loads its models and saves both kinds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from raysynth.config import ClassifierConfig, Config
from raysynth.errors import ConfigError, ModelError, first_line
from raysynth.models.headers import read_config
from raysynth.models.sources import CLIP, is_path, resolve

SMALL = "small"
NORMALISATION = 0.5
"""Mean and standard deviation of the small network's normalisation: pixels to [-1, 1]."""

WEIGHTS = Path(__file__).parents[1] / "models" / "small"
"""Shipped weights of the small network, see `raysynth.models.pretrain.network`."""

EMBEDDED_WIDTHS = (32, 64, 128)
UNSEEN = ("pullover", "coat")
"""Garments that the shipped `other_garments` weights were not trained on."""


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
        # In place: a normalisation needs its input again, never its output.
        hidden = torch.relu_(self.norm1(self.convolution1(x)))
        return torch.relu_(self.norm2(self.convolution2(hidden)).add_(self.shortcut(x)))


class SmallNetwork(nn.Module):
    """Residual network for small images: a strided stem, one block per width, mean pooling."""

    def __init__(self, widths: tuple[int, ...], channels: int, classes: int) -> None:
        """Random weights; `widths`: channels of the stages, `channels`: of the images."""
        super().__init__()
        first = widths[0]
        self.stem = nn.Conv2d(channels, first, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        inside = (first, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(before, width, 1 if stage == 0 else 2)
                for stage, (before, width) in enumerate(zip(inside, widths, strict=True))
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)
        self.apply(initialise)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        hidden = self.blocks(torch.relu_(self.norm(self.stem(pixel_values))))
        # A mean over [B, H * W, C] keeps the gradient's channels last, as the convolutions are.
        return self.classifier(hidden.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))


def initialise(module: nn.Module) -> None:
    """Random weights of the small network's convolutions (He et al. 2015); others keep theirs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def with_clip(config: Config) -> Config:
    """The configuration with `classifier.backbone: clip` as the folder or hub id of `base.clip`."""
    if config.classifier.backbone != CLIP:
        return config
    classifier = config.classifier.model_copy(
        update={
            "backbone": resolve(config.base.clip, clip=True),
            "revision": config.base.clip_revision,
        }
    )
    return config.model_copy(update={"classifier": classifier})


def check_backbone(config: Config) -> None:
    """Refuse, without loading weights, a backbone that cannot be built or would cheat.

    (What a hub id holds is known when it is loaded.)

    Raises
    ------
    ModelError
        A folder that transformers cannot read, whose model does not take the images or has several
        heads, or whose files lack some of its weights.
    ConfigError
        Embedded pretrained weights for other widths, or for a pair of garments that they know.
    """
    _check_folder(with_clip(config).classifier.backbone)
    trainings = (config.classifier, config.for_references().classifier)
    named = os.path.expanduser(config.classifier.backbone)
    if named not in (SMALL, CLIP) and os.path.isdir(named):
        from raysynth.classify.pretrained import check_model
        from raysynth.datasets.listing import stored_side

        side = config.classifier.image_size or stored_side(config.dataset)
        check_model(named, side, any(one.starts_pretrained for one in trainings))
    for classifier in trainings:
        if classifier.backbone == SMALL and classifier.starts_pretrained:
            _check_embedded(config, classifier)


def _check_folder(name: str) -> None:
    if name == SMALL or not is_path(name):
        return
    if not os.path.isfile(os.path.join(os.path.expanduser(name), "config.json")):
        raise ModelError(
            f"classifier.backbone: no config.json in {name}; expected `small`, `clip`, a hub id "
            "(owner/model) or a folder written by save_pretrained. Fix: check the path"
        )
    read_config("classifier.backbone", Path(name).expanduser() / "config.json")


def _check_embedded(config: Config, classifier: ClassifierConfig) -> None:
    if classifier.widths != EMBEDDED_WIDTHS:
        raise ConfigError(
            f"classifier.widths: got {list(classifier.widths)}, but the embedded pretrained "
            f"network has {list(EMBEDDED_WIDTHS)}. Fix: leave widths, or start from scratch "
            "(classifier.start, references.start)"
        )
    known = set(config.dataset.pair) - set(UNSEEN)
    if config.dataset.name == "outfits" and known:
        raise ConfigError(
            f"dataset.pair: the embedded pretrained network was trained on the garments "
            f"{', '.join(sorted(known))}, so it cannot stand for one that never saw the classes; "
            f"expected {' and '.join(UNSEEN)}. Fix: classifier.start=scratch and "
            "references.start=scratch"
        )


def build_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The backbone with a fresh head for these labels, for images of `size` x `size` pixels.

    Random parts come from torch's global generator. Weights are read from safetensors only.

    Raises
    ------
    ModelError
        When transformers cannot load the named model.
    """
    if classifier.backbone == SMALL:
        network = SmallNetwork(classifier.widths, 3, len(label_names))
        if classifier.starts_pretrained:
            load_embedded(network, "other_garments")
        return network
    from raysynth.classify.pretrained import load_model

    return load_model(classifier, label_names, size)


def load_embedded(network: SmallNetwork, name: str) -> None:
    """Put shipped weights into the encoder of a small network; its head stays as it is."""
    found = safetensors.torch.load_file(WEIGHTS / f"{name}.safetensors")
    encoder = {key: value for key, value in found.items() if not key.startswith("classifier.")}
    state = network.state_dict()
    network.load_state_dict(state | {key: v.to(state[key].dtype) for key, v in encoder.items()})


def linear_head(model: nn.Module, classes: int) -> nn.Linear:
    """The linear layer that makes the logits: the last one with as many outputs as labels.

    Raises
    ------
    ModelError
        When there is none, so that no head could be refitted on frozen features; see also
        `check_head`.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    if not linear:
        raise ModelError(
            f"classifier.backbone: {type(model).__name__} has no linear layer with {classes} "
            "outputs, so stage 2 has no head to fit. Fix: choose a model with a linear head"
        )
    return linear[-1]


def check_head(name: str, head: nn.Linear, features: Tensor | None, logits: Tensor) -> None:
    """Raise ModelError unless the logits [B, K] of a model are `head` of its features [B, D]."""
    if features is not None and features.ndim == 2:
        difference = float((head(features) - logits).abs().max())
        if difference <= 1e-3 * max(1.0, float(logits.abs().max())):
            return
    raise several_heads(name)


def several_heads(name: str) -> ModelError:
    """The refusal of a model whose logits are not one linear layer on its features."""
    return ModelError(
        f"classifier.backbone: the logits of {name} are not its last linear layer on its features "
        "(a distilled model's are the mean of two heads); expected one linear head, which stage 2 "
        "fits. Fix: choose the model with a single head, e.g. DeiTForImageClassification instead "
        "of DeiTForImageClassificationWithTeacher"
    )


def other_size(name: str, size: int, error: Exception) -> ModelError:
    """The refusal of a model that fails at images of `size` pixels."""
    return ModelError(
        f"classifier.backbone: {name} does not take images of {size} x {size} pixels "
        f"({first_line(error)}). Fix: classifier.image_size=<the image_size in its "
        "config.json>"
    )
