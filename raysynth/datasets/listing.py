"""What every data set offers before a single image is decoded: its listing and its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from raysynth.config import ClassifierConfig, DatasetConfig
from raysynth.datasets.celeba import CelebA
from raysynth.datasets.folder import Folder
from raysynth.datasets.outfits import SIZE, Outfits
from raysynth.datasets.utkface import UTKFace
from raysynth.datasets.waterbirds import Waterbirds
from raysynth.errors import ConfigError, DataError
from raysynth.groups import Groups, require_every_group, subsample_to_severity
from raysynth.tables import SPLITS

VALIDATION_LEAST = 10
"""Images that a thinned validation split keeps of each group at least (FFR)."""


class Dataset(Protocol):
    """A data set: names and words of its groups, a cheap listing, and its images by row."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values, in order."""

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, in order."""

    @property
    def label_words(self) -> tuple[str, ...]:
        """How prompts speak of the labels."""

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """How prompts speak of the attributes."""

    @property
    def aligned(self) -> tuple[str, ...]:
        """Name of the attribute that each label goes with; none: the largest group's."""

    def listing(self) -> pa.Table:
        """`id, label, attribute, split` and what the data set needs to make the images."""

    def images(self, rows: pa.Table) -> Sequence[bytes | None]:
        """Encoded image of each row; None where a file cannot be read."""


def open_dataset(config: DatasetConfig, seed: int) -> Dataset:
    """The data set that the configuration names; raises ConfigError or DataError."""
    path, size = str(config.path), config.image_size
    pair = {"label": config.label, "attribute": config.attribute}
    asked = {key: name for key, name in pair.items() if name is not None}
    if config.name == "folder":
        return Folder(path, config.validation_share, config.test_share, size, seed)
    if config.name == "waterbirds":
        return Waterbirds(path, size)
    if config.name == "celeba":
        return CelebA(path, image_size=size, **asked)
    if config.name == "utkface":
        return UTKFace(path, image_size=size, seed=seed, **asked)
    assert isinstance(config.severity, float)
    return Outfits(
        pair=config.pair,
        severity=config.severity,
        train_images=config.train_images,
        validation_images=config.validation_images,
        test_images=config.test_images,
        idx_path=config.path,
        seed=seed,
    )


def list_dataset(config: DatasetConfig, seed: int) -> tuple[Dataset, Groups, pa.Table]:
    """The data set, its groups, and its listing with a `group` column at the asked severity.

    Raises
    ------
    DataError
        Files or groups are not what the run needs; nothing has been decoded yet.
    """
    try:
        dataset = open_dataset(config, seed)
        listing = dataset.listing()
    except ValueError as error:
        raise DataError(str(error)) from None
    groups = _groups(config, dataset)
    label, attribute = listing["label"].to_numpy(), listing["attribute"].to_numpy()
    group = label * len(groups.attribute_names) + attribute
    listing = listing.append_column("group", pa.array(group, pa.int32()))
    if config.name != "outfits" and isinstance(config.severity, float):
        listing = _thin(listing, groups, config, seed)
    counts = split_counts(listing, groups)
    for split in SPLITS:
        require_every_group(counts[split], groups, split)
    return dataset, groups, listing


def split_counts(listing: pa.Table, groups: Groups) -> dict[str, np.ndarray]:
    """Images per group, [G], of each split."""
    group, split = listing["group"].to_numpy(), np.asarray(listing["split"].to_pylist())
    return {name: np.bincount(group[split == name], minlength=groups.count) for name in SPLITS}


def stored_side(config: DatasetConfig) -> int | None:
    """Side of the real table's images, pixels; None: that of the files, not known yet."""
    return SIZE if config.name == "outfits" else config.image_size


def check_sides(config: ClassifierConfig, sides: Sequence[int]) -> None:
    """Refuse images that no classifier takes as they are: not all square and of one size.

    `sides`: the shortest and the longest of the stored images, pixels; none: not known. Raises
    DataError.
    """
    if config.image_size is None and len(set(sides)) > 1:
        raise DataError(
            f"classifier.image_size is not set and the real images' sides are {sides[0]} to "
            f"{sides[1]} pixels; expected square images of one size, as a classifier needs them. "
            "Fix: classifier.image_size=<pixels>, e.g. 224, at which their centre squares are taken"
        )


def _thin(listing: pa.Table, groups: Groups, config: DatasetConfig, seed: int) -> pa.Table:
    """Training rows, and validation rows if asked, at a severity; test stays whole."""
    split, group = np.asarray(listing["split"].to_pylist()), listing["group"].to_numpy()
    least = {"train": 1, **({"validation": VALIDATION_LEAST} if config.thin_validation else {})}
    kept = [np.flatnonzero(~np.isin(split, list(least)))]
    for name, images in least.items():
        rows = np.flatnonzero(split == name)
        require_every_group(np.bincount(group[rows], minlength=groups.count), groups, name)
        severity = float(config.severity)
        kept.append(rows[subsample_to_severity(group[rows], groups, severity, seed, images)])
    return listing.take(np.sort(np.concatenate(kept)))


def _groups(config: DatasetConfig, dataset: Dataset) -> Groups:
    return Groups(
        dataset.label_names,
        dataset.attribute_names,
        _words("label_words", config.label_words, dataset.label_names, dataset.label_words),
        _words(
            "attribute_words",
            config.attribute_words,
            dataset.attribute_names,
            dataset.attribute_words,
        ),
        _aligned(config.aligned or {}, dataset),
    )


def _aligned(given: dict[str, str], dataset: Dataset) -> tuple[str, ...]:
    """The attribute's name for each label: as given, else the data set's own, else "".

    Empty where none is named at all.
    """
    for said, found, known in (
        ("label", given, dataset.label_names),
        ("attribute", given.values(), dataset.attribute_names),
    ):
        if unknown := sorted(set(found) - set(known)):
            raise ConfigError(
                f"dataset.aligned: {', '.join(unknown)} is no {said} of this data set; expected "
                f"{', '.join(known)}. Fix: a mapping of label names to attribute names"
            )
    own = dataset.aligned or ("",) * len(dataset.label_names)
    named = zip(dataset.label_names, own, strict=True)
    aligned = tuple(given.get(name, attribute) for name, attribute in named)
    return aligned if any(aligned) else ()


def _words(
    key: str, given: dict[str, str] | None, names: tuple[str, ...], default: tuple[str, ...]
) -> tuple[str, ...]:
    unknown = sorted(set(given or {}) - set(names))
    if unknown:
        raise ConfigError(
            f"dataset.{key}: {', '.join(unknown)} is no name in this data set; expected "
            f"{', '.join(names)}. Fix: use the names of the metadata"
        )
    return tuple((given or {}).get(name, word) for name, word in zip(names, default, strict=True))
