"""What is refused of a backbone before Ray starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysynth.errors import ConfigError, DataError, ModelError
from raysynth.models.efficientnet_lite import check_lite
from raysynth.models.headers import read_config
from raysynth.models.mirror import located
from raysynth.models.settings import CLIP, LITE
from raysynth.models.sources import is_path
from raysynth.networks.build import blueprint_of
from raysynth.networks.settings import CLIP_LORA, EMBEDDED_WIDTHS, SMALL, ClassifierConfig

KEY = "classifier.backbone"
OWN = (SMALL, CLIP, CLIP_LORA, LITE)
"""Names of backbones that are no folder's."""
UNSEEN = ("pullover", "coat")
"""Garments that the shipped `other_garments` weights were not trained on."""


def check_backbone(config: Any) -> None:
    """Refuse, without loading weights, a backbone that cannot be built or would cheat.

    (What a hub id holds is known when it is loaded.)

    Raises
    ------
    ModelError
        A folder that transformers cannot read, whose model does not take the images or has several
        heads, or whose files lack some of its weights; weights whose package is not installed.
    ConfigError
        Adapters on random weights; embedded pretrained weights for other widths, or for a pair of
        garments that they know.
    """
    _check_folder(blueprint_of(config).resolved().backbone)
    trainings = (config.classifier, config.references.network(config.classifier))
    named = located(config.classifier.backbone, KEY)
    pretrained = any(one.starts_pretrained for one in trainings)
    if named == LITE and pretrained:
        check_lite(KEY)
    elif named not in OWN and os.path.isdir(named):
        from raysynth.networks.fitting import check_model

        check_model(named, config.classifier.image_size or config.dataset.stored_side, pretrained)
    for classifier in trainings:
        if classifier.backbone == CLIP_LORA and not classifier.starts_pretrained:
            raise ConfigError(
                "classifier.backbone=clip_lora: adapts what CLIP knows, so it cannot start from "
                "scratch; expected its pretrained weights. Fix: leave classifier.start and "
                "references.start out, or classifier.backbone=clip"
            )
        if classifier.backbone == SMALL and classifier.starts_pretrained:
            _check_embedded(config.dataset, classifier)


def _check_folder(name: str) -> None:
    if name in OWN or not is_path(name):
        return
    file = Path(located(name, KEY)) / "config.json"
    if not file.is_file():
        raise ModelError(
            f"{KEY}: no config.json in {name}; expected `small`, `clip`, `{LITE}`, a hub id "
            "(owner/model) or a folder written by save_pretrained. Fix: check the path"
        )
    read_config(KEY, file)


def _check_embedded(dataset: Any, classifier: ClassifierConfig) -> None:
    if classifier.widths != EMBEDDED_WIDTHS:
        raise ConfigError(
            f"classifier.widths: got {list(classifier.widths)}, but the embedded pretrained "
            f"network has {list(EMBEDDED_WIDTHS)}. Fix: leave widths, or start from scratch "
            "(classifier.start, references.start)"
        )
    if known := set(dataset.garments) - set(UNSEEN):
        raise ConfigError(
            f"dataset.pair: the embedded pretrained network was trained on the garments "
            f"{', '.join(sorted(known))}, so it cannot stand for one that never saw the classes; "
            f"expected {' and '.join(UNSEEN)}. Fix: classifier.start=scratch and "
            "references.start=scratch"
        )


def check_sides(config: Any, facts: Mapping[str, Any]) -> None:
    """Refuse images that no classifier takes as they are: not all square and of one size.

    `facts`: ingest's; its `sides` are the shortest and the longest of the stored images, pixels
    (none: not known). Raises DataError.
    """
    sides: Sequence[int] = facts.get("sides", ())
    if config.classifier.image_size is None and len(set(sides)) > 1:
        raise DataError(
            f"classifier.image_size is not set and the real images' sides are {sides[0]} to "
            f"{sides[1]} pixels; expected square images of one size, as a classifier needs them. "
            "Fix: classifier.image_size=<pixels>, e.g. 224, at which their centre squares are taken"
        )
