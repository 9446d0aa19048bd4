"""Label x attribute -> group; severity subsampling."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raysynth.errors import DataError
from raysynth.terminal import CONTROLS

ROUNDED_DOWN = 0.9
"""Severity up to which FFR's published counts are rounded down."""
LONGEST_NAME = 100
"""Characters of a label's or an attribute's name."""
LEAST = {"train": 1, "validation": 2, "test": 2}
"""Images of every group that a split has at least."""
FEW = 20
"""Images of a group with fewer of which its accuracy says little."""
SHOWN = 8
"""Names that a message lists."""
UNKNOWN = -1
"""Attribute and group of an image whose attribute is not known; so Hugging Face's `ClassLabel`."""


@dataclass(frozen=True)
class Groups:
    """The groups g = (y, a) of a data set: names, and the words prompts use for them.

    `aligned`: the attribute that each label goes with, by name; "", or nothing at all: the one of
    the class's largest group. `found`: the attributes are those that a grouping method found, and
    an accuracy of one of these groups is of the images that it put there.
    """

    label_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    label_words: tuple[str, ...]
    attribute_words: tuple[str, ...]
    aligned: tuple[str, ...] = ()
    found: bool = False

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
        """`label/attribute`, e.g. `pullover/grass`; the label where the attribute has no name."""
        label, attribute = self.label(group), self.attribute(group)
        return f"{self.label_names[label]}/{self.attribute_names[attribute]}".removesuffix("/")

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

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON and Parquet metadata; `aligned` and `found` where they say more."""
        values = {key: list(value) for key, value in asdict(self).items() if key != "found"}
        if not any(self.aligned):
            del values["aligned"]
        return values | ({"found": True} if self.found else {})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Groups:
        """Inverse of `to_dict`."""
        names = {key: tuple(value) for key, value in values.items() if key != "found"}
        return cls(**names, found=bool(values.get("found", False)))


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


def require_every_group(counts: np.ndarray, groups: Groups, split: str, least: int = 1) -> None:
    """Refuse a split in which a label has fewer than `least` images with some attribute."""
    few = [g for g in range(groups.count) if counts[g] < least]
    if few:
        found = "no" if all(counts[g] == 0 for g in few) else f"fewer than {least}"
        fix = "add such images, or drop that label or attribute from the metadata"
        if split == "train":
            fix = (
                "call some of its validation or test images train, or add one: one of them is "
                "enough, its group's images are then drawn by the model of another group "
                "(finetune.min_images), but references and the gate compare with real ones. Or "
                "drop that label or attribute"
            )
        if least > 1:
            fix += f"; or take more for {split} (of a folder without split: dataset.{split}_share)"
        raise DataError(
            f"dataset: {found} {split} image in group(s) {_few(groups.name(g) for g in few)}; got "
            f"{_few(f'{groups.name(g)}: {counts[g]}' for g in range(groups.count))}; expected at "
            f"least {least} of every label with every attribute. Fix: {fix}"
        )


def group_counts(group: np.ndarray, groups: int) -> np.ndarray:
    """[G] images per group of those whose group is known."""
    return np.bincount(group[group != UNKNOWN], minlength=groups)


def require_every_label(counts: np.ndarray, groups: Groups, split: str) -> None:
    """Refuse a split with too few images of a label; `counts`: [number of labels].

    Of two groups at least: whose images is not known yet.
    """
    least = 2 * LEAST[split]
    few = [name for name, n in zip(groups.label_names, counts, strict=True) if n < least]
    if few:
        raise DataError(
            f"dataset: fewer than {least} {split} images of label(s) {_few(few)}; got "
            f"{_few(f'{n}: {c}' for n, c in zip(groups.label_names, counts, strict=True))}; "
            f"expected {least} or more of every label. Fix: add such images, or drop that label "
            f"from the metadata; or take more for {split} (of a folder without split: "
            f"dataset.{split}_share)"
        )


def require_splits(counts: Mapping[str, np.ndarray], groups: Groups) -> None:
    """Refuse splits, split -> [G] images, in which an accuracy of a group would be of one image."""
    for split, found in counts.items():
        require_every_group(found, groups, split, LEAST[split])


def check_names(groups: Groups, *, attributes: bool = True) -> None:
    """Refuse names that cannot stand in records, pages and messages, and groups of one name.

    `attributes`: there must be two or more of them, as they are not to be found yet.

    Raises
    ------
    DataError
        One label or one attribute only; a name that is blank, has control characters or more than
        LONGEST_NAME; two groups that are both called `a/b/c`.
    """
    for what, names, one in (
        ("label", groups.label_names, "nothing to tell apart"),
        ("attribute", groups.attribute_names, "nothing that a label could go with"),
    ):
        if len(names) < 2 and (attributes or what == "label"):
            unknown = "; or dataset.attributes=unknown, to find them" * (what == "attribute")
            raise DataError(
                f"dataset: one {what} only ({_few(names)}), which is {one}; expected two or more "
                f"{what}s. Fix: add images of another {what}{unknown}"
            )
        if wrong := [name for name in names if not _speakable(name)]:
            raise DataError(
                f"dataset: {what} name {_few(map(ascii, wrong))}; expected 1 to {LONGEST_NAME} "
                "characters, not all of them blank, without line breaks and control characters. "
                "Fix: rename it in the metadata"
            )
    named = Counter(groups.name(g) for g in range(groups.count))
    if twice := [name for name, count in named.items() if count > 1]:
        raise DataError(
            f"dataset: two groups (label/attribute) are both called {_few(twice)}; expected a name "
            "for each. Fix: rename labels or attributes in the metadata so that none holds a `/`"
        )


def _speakable(name: str) -> bool:
    plain = not any(unicodedata.category(character) in CONTROLS for character in name)
    return plain and bool(name.strip()) and len(name) <= LONGEST_NAME


def _few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 40 else f"{name[:37]}..." for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
