"""Backbones: a small residual network, or any transformers image classification model.

Both have a linear head on pooled features. Importing transformers takes seconds of every worker,
so only `raysynth.networks.pretrained`, `saved` and `fitting` do, where one of its models is named
or a network is saved; and torch, only where a network is built: a plan asks for none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.models.settings import CLIP, BaseConfigSection
from raysynth.models.sources import resolve
from raysynth.networks.settings import CLIP_LORA, SMALL, ClassifierConfig


@dataclass(frozen=True)
class Blueprint:
    """What a run's networks are made from; `base`: what `classifier.backbone: clip` is, the device.

    `seed`: of the run, of which those of its trainings are functions.
    """

    classifier: ClassifierConfig
    base: BaseConfigSection
    seed: int

    def resolved(self) -> ClassifierConfig:
        """The section with `backbone: clip`, `clip_lora` as the folder or hub id of `base.clip`."""
        if self.classifier.backbone not in (CLIP, CLIP_LORA):
            return self.classifier
        clip = resolve(self.base.clip, clip=True)
        named = {"backbone": clip, "revision": self.base.clip_revision}
        return self.classifier.model_copy(update=named)

    def with_backbone(self, name: str) -> Blueprint:
        """The same with another backbone."""
        return replace(self, classifier=self.classifier.model_copy(update={"backbone": name}))


def blueprint_of(config: Sections) -> Blueprint:
    """That of a configuration."""
    return Blueprint(config[ClassifierConfig], config[BaseConfigSection], config.seed)


def model_of(blueprint: Blueprint, groups: Groups, size: int) -> Any:
    """The backbone of a blueprint with a fresh head for these labels; as `build_model`."""
    if blueprint.classifier.backbone != CLIP_LORA:
        return build_model(blueprint.resolved(), groups.label_names, size)
    from raysynth.networks.clip_lora import load_clip_lora

    return load_clip_lora(blueprint.resolved(), groups.label_words)


def build_model(classifier: ClassifierConfig, label_names: tuple[str, ...], size: int) -> Any:
    """The backbone with a fresh head for these labels, for images of `size` x `size` pixels.

    Random parts come from torch's global generator. Weights are read from safetensors only.

    Raises
    ------
    ModelError
        When transformers cannot load the named model.
    """
    if classifier.backbone == SMALL:
        from raysynth.networks.small import SmallNetwork, load_embedded

        network = SmallNetwork(classifier.widths, 3, len(label_names))
        if classifier.starts_pretrained:
            load_embedded(network, "other_garments")
        return network
    from raysynth.networks.pretrained import load_model

    return load_model(classifier, label_names, size)
