"""A data set before a single image is decoded: its listing at the asked severity, its groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.datasets.captions import require_captions
from raysynth.datasets.damage import damaged
from raysynth.datasets.files import clipped, reaching, some
from raysynth.datasets.imprecise import imprecise_attributes
from raysynth.datasets.layout import Dataset, layout_of
from raysynth.datasets.settings import DatasetConfig
from raysynth.datasets.shots import few_shots
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import (
    FEW,
    UNKNOWN,
    Groups,
    check_names,
    group_counts,
    require_every_group,
    require_every_label,
    require_splits,
    subsample_to_severity,
)
from raysynth.storage.tables import SPLITS

VALIDATION_LEAST = 10
"""Images that a thinned validation split keeps of each group at least (FFR)."""


def list_dataset(config: DatasetConfig, seed: int) -> tuple[Dataset, Groups, pa.Table]:
    """The data set, its groups, and its listing with a `group` column at the asked severity.

    Raises
    ------
    DataError
        Files, names or groups are not what the run needs; nothing has been decoded yet.
    """
    try:
        with reaching(str(config.path or "")):
            dataset = damaged(layout_of(config).open(config, seed), config, seed)
            listing = dataset.listing()
            groups = _groups(config, dataset)
    except ValueError as error:
        raise DataError(str(error)) from None
    check_names(groups, attributes=config.attributes == "given")
    label, attribute = listing["label"].to_numpy(), listing["attribute"].to_numpy()
    group = np.where(attribute < 0, UNKNOWN, label * len(groups.attribute_names) + attribute)
    listing = listing.append_column("group", pa.array(group, pa.int32()))
    if not layout_of(config).is_composed and isinstance(config.severity, float):
        _require_known(listing, groups, "dataset.severity", "dataset.severity=original")
        listing = _thin(listing, groups, config, seed)
    if config.shots is not None:
        _require_known(listing, groups, "dataset.shots", "dataset.shots=null")
        listing = few_shots(listing, groups, config.shots, seed)
    if config.hidden_attributes or config.wrong_attributes:
        listing = _imprecise(listing, groups, config, seed)
    require_images(config, listing, groups)
    require_captions(config, listing)
    return dataset, groups, listing


def require_images(config: DatasetConfig, listing: pa.Table, groups: Groups) -> None:
    """Refuse splits with too few images of a group; of unknown attributes, of a label.

    Test images whose attributes are all known are measured in these groups.
    """
    counts = split_counts(listing, groups)
    if config.knows_attributes:
        return require_splits(counts, groups)
    if config.attributes == "given":  # training's are hidden
        require_splits({name: counts[name] for name in SPLITS[1:]}, groups)
    split, label = np.asarray(listing["split"].to_pylist()), listing["label"].to_numpy()
    for name in SPLITS:
        found = np.bincount(label[split == name], minlength=len(groups.label_names))
        require_every_label(found, groups, name)
    if counts["test"].sum() == (split == "test").sum():
        require_splits({"test": counts["test"]}, groups)


def few_measured(counts: dict[str, np.ndarray], groups: Groups) -> list[str]:
    """Warnings of groups whose accuracy is measured on a handful; `counts`: split -> [G] images."""
    warnings = []
    for split in ("validation", "test"):
        few = [g for g in range(groups.count) if 0 < counts[split][g] < FEW]  # 0: not known
        if few:
            least = min(few, key=lambda g: int(counts[split][g]))
            warnings.append(
                f"dataset: {len(few)} group(s) have fewer than {FEW} {split} images, "
                f"{groups.name(least)} {counts[split][least]}: each of those is "
                f"{100 / counts[split][least]:.0f} points of its accuracy, and the worst group may "
                "be the unluckiest. Fix: more images of it in that split"
            )
    return warnings


def split_counts(listing: pa.Table, groups: Groups) -> dict[str, np.ndarray]:
    """Images per group, [G], of each split; those of unknown groups are in none."""
    group, split = listing["group"].to_numpy(), np.asarray(listing["split"].to_pylist())
    return {name: group_counts(group[split == name], groups.count) for name in SPLITS}


def known_counts(listing: pa.Table, groups: Groups, split: str = "train") -> np.ndarray:
    """[K, A + 1] images of every class by attribute; last: those whose attribute is not known."""
    rows = listing.filter(pc.equal(listing["split"], split))
    label, group = rows["label"].to_numpy(), rows["group"].to_numpy()
    labels, width = len(groups.label_names), len(groups.attribute_names)
    known = group_counts(group, groups.count).reshape(labels, width)
    unknown = np.bincount(label[group == UNKNOWN], minlength=labels)
    return np.column_stack([known, unknown])


def classes_alone(groups: Groups, listing: pa.Table) -> tuple[Groups, pa.Table]:
    """One group of every class, and the listing in these: what is known before groups are found."""
    place = listing.column_names.index("group")
    whole = Groups(groups.label_names, ("unknown",), groups.label_words, ("",))
    return whole, listing.set_column(place, "group", listing["label"].cast(pa.int32()))


def _imprecise(listing: pa.Table, groups: Groups, config: DatasetConfig, seed: int) -> pa.Table:
    """Training rows whose attributes, and the groups that follow, are hidden or wrong as asked."""
    for key in ("hidden_attributes", "wrong_attributes"):
        if getattr(config, key):
            _require_known(listing, groups, f"dataset.{key}", f"dataset.{key}=0")
    width, train = len(groups.attribute_names), pc.equal(listing["split"], "train").to_numpy()
    attribute, label = listing["attribute"].to_numpy().copy(), listing["label"].to_numpy()
    group = listing["group"].to_numpy()
    shares = (config.hidden_attributes, config.wrong_attributes)
    attribute[train] = imprecise_attributes(attribute[train], group[train], width, *shares, seed)
    group = np.where(attribute == UNKNOWN, UNKNOWN, label * width + attribute)
    for name, values in (("attribute", attribute), ("group", group)):
        place = listing.column_names.index(name)
        listing = listing.set_column(place, name, pa.array(values, pa.int32()))
    return listing


def _require_known(listing: pa.Table, groups: Groups, key: str, fix: str) -> None:
    """Refuse a knob that draws from groups where not every image's is known; ConfigError."""
    group = listing["group"].to_numpy()
    if (group == UNKNOWN).any() or len(groups.attribute_names) < 2:
        count = len(group) if len(groups.attribute_names) < 2 else int((group == UNKNOWN).sum())
        raise ConfigError(
            f"{key}: the attributes of {count:,} image(s) are not known; expected all of them, to "
            f"draw from groups. Fix: {fix}"
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
                f"dataset.aligned: {some(unknown)} is no {said} of this data set; expected "
                f"{_listed(known)}. Fix: a mapping of label names to attribute names"
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
            f"dataset.{key}: {some(unknown)} is no name in this data set; expected "
            f"{_listed(names)}. Fix: use the names of the metadata"
        )
    return tuple((given or {}).get(name, word) for name, word in zip(names, default, strict=True))


def _listed(names: Sequence[str]) -> str:
    more = f" or one of {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(clipped, names[:8])) + more
