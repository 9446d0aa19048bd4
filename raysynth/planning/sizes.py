"""Sizes of a base model and of a run's images, from configurations and counts alone."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysynth.config.config import Config
from raysynth.datasets.layout import layout_of
from raysynth.datasets.listing import classes_alone, known_counts, split_counts
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.models.family import FAMILIES, USUAL, Family, family_of, reader_of
from raysynth.models.quantisation import is_quantised
from raysynth.models.sources import resolve
from raysynth.planning.matrices import spared_of_texts
from raysynth.selection.rule import RULES
from raysynth.storage.tables import SPLITS
from raysynth.synthesis.rebalance import INHERITED, Wanted, bred_per_image, shares_of

if TYPE_CHECKING:
    import pyarrow as pa

PHOTOGRAPH = 512
"""Side of a real image, pixels, where nobody says."""


@dataclass(frozen=True)
class Shape:
    """A base model's sizes."""

    family: Family
    network: dict[str, Any]
    """diffusers' configuration of the network that predicts, with the side of its latents."""
    encoders: float
    """Bytes of VAE and text encoder."""
    factor: int
    """Pixels per latent position."""
    tokens: int
    """Length of a prompt."""
    texts: list[dict[str, Any]]
    """transformers' configurations of the text encoders, where they can be adapted."""

    def at(self, pixels: int) -> dict[str, Any]:
        """The network's configuration for images of this side."""
        return self.network | {"sample_size": pixels // self.factor}

    @property
    def side(self) -> int:
        """Side of the model's own images, pixels."""
        return int(self.network["sample_size"]) * self.factor


@dataclass(frozen=True)
class Images:
    """Numbers and sides (pixels) of a run's images."""

    splits: dict[str, int]
    """Real images."""
    groups: int
    candidates: int
    """Generated, of all groups together; by each generator."""
    kept: int
    """Of these, after selection."""
    real_side: int
    generated_side: int
    classified_side: int
    attributes: int = 2
    """Of every class."""

    @property
    def shared_bytes(self) -> float:
        """Training, validation and kept images as the classifiers' decoded pixels."""
        decoded = self.splits["train"] + self.splits["validation"] + self.kept
        return float(decoded * self.image_bytes)

    @property
    def image_bytes(self) -> int:
        """Of one decoded image, as classifiers see it."""
        return 3 * self.classified_side**2


def base_shape(config: Config, assumptions: list[str]) -> Shape:
    """The base's sizes, from its configuration files; says what is assumed of a hub id."""
    source = resolve(config.base.name)
    if not os.path.isdir(source):
        family = _usual(source)
        assumptions.append(
            f"{source} has the shape of {family.title} (the hub is not asked for a plan)"
        )
        if is_quantised(config.base):
            assumptions.append("its text encoders are counted whole, not quantised")
        return published_shape(family)
    read = reader_of(Path(source))
    family = family_of(source, read)
    files = [
        os.path.join(folder, name)
        for part in (*family.roles["vae"], *family.roles["text"])
        for folder, _, names in os.walk(f"{source}/{part}")
        for name in names
        if name.endswith(".safetensors")
    ]
    size = float(sum(os.path.getsize(name) for name in files))
    size -= spared_of_texts(config.base, family, Path(source))
    found = family.shape(read)
    side = {"sample_size": found.latents[1]}
    network = side | dict(read(family.roles["model"][0]) or {})
    parts = family.roles["text"] if family.text_targets else ()
    said = [dict(read(part) or {}) for part in parts]
    texts = [text for text in said if "hidden_size" in text]
    return Shape(family, network, size, found.factor, found.tokens, texts)


def published_shape(family: Family) -> Shape:
    """The sizes of a family's usual model."""
    usual, shape = family.published, family.published.shape
    network = {"sample_size": shape.latents[1]} | dict(usual.network)
    texts = [dict(text) for text in usual.texts]
    return Shape(family, network, usual.encoders, shape.factor, shape.tokens, texts)


def _usual(source: str) -> Family:
    """The family that a hub id's name is known for, or the usual one."""
    name = source.lower()
    named = (family for family in FAMILIES.each() if name.startswith(family.published.hub))
    return next(named, FAMILIES[USUAL])


def planned_groups(
    config: Config, groups: Groups, listing: pa.Table, assumptions: list[str]
) -> tuple[Groups, dict[str, np.ndarray]]:
    """The groups that are planned with, and split -> [G] images of them.

    Where a method is to find them, the data set's own if all are known, or as many in training as
    those of known attribute are; else one of every class.
    """
    if config.grouping.is_given:
        return groups, split_counts(listing, groups)
    unknown = bool((listing["group"].to_numpy() == UNKNOWN).any())
    some = unknown and len(groups.attribute_names) > 1
    if some and known_counts(listing, groups)[:, :-1].all():
        as_if, counts = "they were as those that are known", _spread(listing, groups)
    elif some or len(groups.attribute_names) < 2:
        groups, listing = classes_alone(groups, listing)
        as_if, counts = "every class was one group", split_counts(listing, groups)
    else:
        as_if, counts = "they were the data set's own", split_counts(listing, groups)
    method = config.grouping.method.name
    assumptions.append(
        f"groups: those that {method} finds are not known yet; planned as if {as_if}"
    )
    return groups, counts


def _spread(listing: pa.Table, groups: Groups) -> dict[str, np.ndarray]:
    """Split -> [G] images, those of unknown attribute as their class's known training ones."""
    known = known_counts(listing, groups)[:, :-1]
    shares = known / known.sum(axis=1, keepdims=True)
    found = {split: known_counts(listing, groups, split) for split in SPLITS}
    return {
        split: np.rint(counts[:, :-1] + counts[:, -1:] * shares).astype(np.int64).ravel()
        for split, counts in found.items()
    }


def image_sizes(
    config: Config,
    counts: Mapping[str, np.ndarray | int],
    groups: Groups,
    shape: Shape,
    assumptions: list[str],
    listing: pa.Table | None = None,
) -> Images:
    """The run's images; says what is assumed of them: real ones are as large as the first.

    `counts`: split -> [G] images, or all of them; `listing`: their rows, None: none is looked at.
    """
    real = config.dataset.stored_side
    if real is None:
        first = None if listing is None else first_size(config, listing)
        width, height = first or (PHOTOGRAPH, PHOTOGRAPH)
        real = round((width * height) ** 0.5)
        seen = ", as the first is" if first else ""
        assumptions.append(
            f"real images of {width} x {height} pixels{seen} (dataset.image_size is not set)"
        )
    made, selection = groups.count * config.synthesis.images_per_group, config.selection
    share = RULES[selection.rule].share(selection)
    return Images(
        {name: int(np.sum(n)) for name, n in counts.items()},
        groups.count,
        made,
        round(made * share),
        real,
        config.synthesis.image_size or shape.side,
        config.classifier.image_size or real,
        len(groups.attribute_names),
    )


def first_size(config: Config, listing: pa.Table) -> tuple[int, int] | None:
    """Width and height of the first image, pixels; None where it cannot be read."""
    from PIL import Image

    dataset = layout_of(config.dataset).open(config.dataset, config.seed)
    (data,) = dataset.images(listing.slice(0, 1))
    return Image.open(io.BytesIO(data)).size if isinstance(data, bytes) else None


def drawn_per_image(
    config: Config, groups: Groups, counts: np.ndarray, assumptions: list[str]
) -> float:
    """Images drawn for each candidate where they are bred, expected; 1 where they are not.

    `counts`: [G] training images per group. Says what is expected of each group.
    """
    settings = config.synthesis.rebalance
    if not settings.on:
        return 1.0
    kept = (config.synthesis.images_per_group, settings.founders, settings.children)
    each = [
        bred_per_image(Wanted(name, kept[0], share, *kept[1:]))
        for name, share in zip(groups.names, shares_of(counts, groups), strict=True)
    ]
    named = (f"{name} {n:.1f}" for name, n in zip(groups.names, each, strict=True))
    assumptions.append(
        f"synthesis.rebalance: images drawn per accepted one, an estimate: {', '.join(named)}, if "
        f"groups are drawn as often as they are photographed and {INHERITED:.0%} of children are "
        "accepted"
    )
    return sum(each) / len(each)
