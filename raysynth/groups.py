"""Label x attribute -> group; severity subsampling."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from raysynth.errors import DataError

ROUNDED_DOWN = 0.9
"""Severity up to which FFR's published counts are rounded down."""


@dataclass(frozen=True)
class Groups:
    """The groups g = (y, a) of a data set: names, and the words prompts use for them.

    `aligned`: the attribute that each label goes with, by name; "", or nothing at all: the one of
    the class's largest group.
    """

    label_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    label_words: tuple[str, ...]
    attribute_words: tuple[str, ...]
    aligned: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of groups: labels x attributes."""
        return len(self.label_names) * len(self.attribute_names)

    def index(self, label: int, attribute: int) -> int:
        """Group g = y * (number of attributes) + a."""
        return label * len(self.attribute_names) + attribute

    def label(self, group: int) -> int:
        """Label y of a group."""
        return group // len(self.attribute_names)

    def attribute(self, group: int) -> int:
        """Attribute a of a group."""
        return group % len(self.attribute_names)

    def name(self, group: int) -> str:
        """`label/attribute`, e.g. `pullover/grass`."""
        label, attribute = self.label(group), self.attribute(group)
        return f"{self.label_names[label]}/{self.attribute_names[attribute]}"

    @property
    def names(self) -> list[str]:
        """[G] names that records are keyed by: `name`, with the index where two would be equal.

        Label `a/b` with attribute `c` and label `a` with attribute `b/c` have one name: keyed by
        it, the second would replace the first, and the worst group may be gone.
        """
        found = [self.name(g) for g in range(self.count)]
        if len(set(found)) == len(found):
            return found
        return [f"{g}: {name}" for g, name in enumerate(found)]

    def of_label(self, label: int) -> range:
        """The groups of a class."""
        width = len(self.attribute_names)
        return range(label * width, (label + 1) * width)

    def to_dict(self) -> dict[str, list[str]]:
        """Plain lists, for JSON and Parquet metadata; without `aligned` where none is named."""
        values = {key: list(value) for key, value in asdict(self).items()}
        if not any(self.aligned):
            del values["aligned"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, list[str]]) -> Groups:
        """Inverse of `to_dict`."""
        return cls(**{key: tuple(value) for key, value in values.items()})


def aligned_groups(counts: np.ndarray, groups: Groups) -> np.ndarray:
    """The bias-aligned group of every class: as `groups.aligned` says, or its largest in training.

    A group that is named but has no image gives way to the class's largest.

    Parameters
    ----------
    counts : [G] training images per group.

    Returns
    -------
    [number of labels] group indices.
    """
    found = largest_groups(counts, groups)
    for label, attribute in enumerate(groups.aligned):
        if attribute:
            named = groups.index(label, groups.attribute_names.index(attribute))
            found[label] = named if counts[named] else found[label]
    return found


def largest_groups(counts: np.ndarray, groups: Groups) -> np.ndarray:
    """[number of labels] the group of every class that has most of `counts`, [G]."""
    table = np.asarray(counts).reshape(len(groups.label_names), len(groups.attribute_names))
    return table.argmax(axis=1) + np.arange(len(table)) * table.shape[1]


def minority_size(majority: int, severity: float) -> int:
    """Images of the bias-conflicting groups of a class: majority * (1-b)/b, at least 1.

    Source: FFR (arXiv 2308.04553), `minority_to_keep`: thinning within a class. Its published split
    files are rounded down at b = 0.9 and up above it; so is this. Floating point is theirs too:
    5,335 at 0.97 leave 166 in CelebA-HQ, and exact arithmetic would leave 165.
    """
    exact = majority * (1 - severity) / severity
    return max(1, math.floor(exact) if severity <= ROUNDED_DOWN else math.ceil(exact))


def subsample_to_severity(
    group: np.ndarray, groups: Groups, severity: float, seed: int, least: int = 1
) -> np.ndarray:
    """Row numbers of the training images that remain at a severity.

    Every class keeps its aligned group whole; the others together are thinned, in
    proportion to their sizes, to `minority_size`. A class already more biased is left as it is.

    Parameters
    ----------
    group : [N] int, group of each training image.
    severity : share b of bias-aligned images within a class, 0.5 <= b < 1.
    least : images that every group keeps, if it has them.

    Returns
    -------
    [M] sorted row numbers.
    """
    rng = np.random.default_rng([seed, 17])
    counts = np.bincount(group, minlength=groups.count)
    aligned = aligned_groups(counts, groups)
    kept = []
    for label, majority in enumerate(aligned):
        kept.append(np.flatnonzero(group == majority))
        others = [g for g in groups.of_label(label) if g != majority]
        budget = minority_size(int(counts[majority]), severity)
        total = max(1, int(sum(counts[g] for g in others)))
        for g in others:
            rows = np.flatnonzero(group == g)
            size = min(len(rows), max(least, round(budget * len(rows) / total)))
            kept.append(rng.permutation(rows)[:size])
    return np.sort(np.concatenate(kept))


def require_every_group(counts: np.ndarray, groups: Groups, split: str) -> None:
    """Refuse a split in which a label has no image of some attribute."""
    empty = [groups.name(g) for g in range(groups.count) if counts[g] == 0]
    if empty:
        sizes = ", ".join(f"{groups.name(g)}: {counts[g]}" for g in range(groups.count))
        raise DataError(
            f"dataset: no {split} image in group(s) {', '.join(empty)}; got {sizes}; expected at "
            "least 1 image of every label with every attribute. Fix: add such images, or drop that "
            "label or attribute from the metadata"
        )
