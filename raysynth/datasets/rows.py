"""A table of names, a row per image, as a listing: their codes, words and splits.

What own images have in common, however they lie there: a metadata table, a tree of folders, the
columns of Parquet files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from raysynth.datasets.captions import CAPTION, as_line
from raysynth.datasets.files import deal_splits, some
from raysynth.datasets.metadata import ordered
from raysynth.datasets.pictures import MEGAPIXELS, Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DataError
from raysynth.groups.groups import LEAST, UNKNOWN
from raysynth.storage.tables import SPLITS

REQUIRED = ("file_name", "label", "attribute")
NO_ATTRIBUTE = "unknown"
"""What the one attribute of all images is called where none is known."""
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
FEW, ROWS_PER_VALUE = 20, 10
"""Names of a column that are few; beyond, each must have the rows of two groups: one training, two
validation and two test images."""


@dataclass(frozen=True)
class OwnImages:
    """Images of the user's own, as a data set; who reads them says how their names are found.

    `validation_share` and `test_share` are used where no split is named, or none is validation:
    every group is divided from the seed. `image_size` (pixels) makes all images squares of that
    side. `attributes`: every image must have one; else they may be unknown. `captions`: as
    `dataset.captions` names them; then rows have them as `caption`.
    """

    path: str
    validation_share: float = 0.1
    test_share: float = 0.2
    image_size: int | None = None
    seed: int = 0
    megapixels: float = MEGAPIXELS
    attributes: bool = True
    captions: str | None = None

    @classmethod
    def of(cls, config: DatasetConfig, seed: int) -> Self:
        """That of a configuration."""
        shares = (config.validation_share, config.test_share)
        known, size = config.attributes == "given", config.image_size
        plain = cls(str(config.path), *shares, size, seed, config.max_megapixels, known)
        return replace(plain, captions=config.captions)

    def read(self) -> pd.DataFrame:
        """A row of texts per image: `file_name`, `label`, `attribute` and, if named, the others."""
        raise NotImplementedError

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size, self.megapixels)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """What is read, once."""
        return self.read()

    def __getstate__(self) -> dict[str, Any]:  # workers are given rows of their own
        return {key: value for key, value in self.__dict__.items() if key != "rows"}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values as they are written; numbers by value, others as text."""
        return names_of(self.rows["label"])

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, as those of the labels; of known ones, if there are."""
        return names_of(self.rows["attribute"]) or (NO_ATTRIBUTE,)

    @property
    def label_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return in_words(self.label_names)

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return in_words(self.attribute_names)

    @property
    def aligned(self) -> tuple[str, ...]:
        """None: the largest group of each class is its aligned one."""
        return ()

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that every row must fill."""
        return REQUIRED if self.attributes else REQUIRED[:2]


def names_of(column: pd.Series) -> tuple[str, ...]:
    """Names as they are written; numbers by value, others as text."""
    return tuple(ordered(column.dropna().unique().tolist()))


def in_words(names: Sequence[str]) -> tuple[str, ...]:
    """The names, underscores as spaces."""
    return tuple(name.replace("_", " ") for name in names)


def checked(frame: pd.DataFrame, where: str, required: Sequence[str], tree: str) -> pd.DataFrame:
    """The table, if it has rows, none with an empty required cell, and a few names in a column.

    `where`: the file, or the folder, as messages name it; `tree`: the layout that is expected.

    Raises
    ------
    DataError
        It has not.
    """
    empty = frame[list(required)].isna().any(axis=1)
    if empty.any():
        unknown = "; or dataset.attributes=unknown, where attributes are" * (
            "attribute" in required
        )
        raise DataError(
            f"{where}: {int(empty.sum())} row(s) with an empty {'/'.join(required)}, the "
            f"first is row {int(np.flatnonzero(empty)[0]) + 1}. Fix: fill or remove "
            f"them{unknown}"
        )
    if frame.empty:
        raise DataError(f"{where}: no rows; {tree}")
    for column in ("label", "attribute"):
        values = frame[column].nunique()
        if values > FEW and values * ROWS_PER_VALUE > len(frame):
            raise DataError(
                f"{where}: {column}: {values:,} different values in {len(frame):,} rows "
                f"({some(frame[column].unique())}); expected a few names. Fix: cut a "
                "continuous value into ranges, such as young and old"
            )
    return frame


def listing_of(frame: pd.DataFrame, ids: Sequence[str], shares: OwnImages) -> pa.Table:
    """`id`, `label, attribute: int32`, `split` of every row; `caption`, where captions are read.

    An attribute that is not known is -1; 0 where none of any image is. Without a column `split`,
    each group is divided by `shares`; with one that has no validation rows, these are taken from
    training's in the same way.

    Raises
    ------
    DataError
        A split that is none, or no row of training or of test.
    """
    label, attribute = _codes(frame["label"]), _codes(frame["attribute"])
    if frame["attribute"].isna().all():
        attribute = np.zeros_like(label)
    unknown = bool((attribute == UNKNOWN).any())  # then a group of its own in every class
    group = label * (attribute.max() + 1 + unknown) + attribute + unknown
    # Of unknown attributes nothing is asked of a group, and splits stay those of before.
    least = 1 if unknown or frame["attribute"].isna().all() else LEAST["test"]
    split = _read_splits(frame["split"]) if "split" in frame else None
    if split is None:
        split = np.array(
            deal_splits(group, shares.validation_share, shares.test_share, shares.seed, least)
        )
    elif "validation" not in split:
        train = np.flatnonzero(split == "train")
        dealt = deal_splits(group[train], shares.validation_share, 0.0, shares.seed, least)
        split[train] = dealt
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(label, pa.int32()),
        "attribute": pa.array(attribute, pa.int32()),
        "split": pa.array(split.tolist(), pa.string()),
    }
    if CAPTION in frame:
        each = zip(ids, frame[CAPTION], strict=True)
        said = ["" if pd.isna(text) else as_line(name, str(text)) for name, text in each]
        columns[CAPTION] = pa.array(said, pa.string())
    return pa.table(columns)


def _codes(column: pd.Series) -> np.ndarray:
    place = {name: number for number, name in enumerate(names_of(column))}
    return column.map(place).fillna(UNKNOWN).to_numpy(np.int64)


def _read_splits(column: pd.Series) -> np.ndarray:
    said = ["" if pd.isna(name) else str(name).lower() for name in column]
    if unknown := sorted(set(said) - set(SPLIT_NAMES)):
        raise DataError(
            f"metadata: split {some(name or '(empty)' for name in unknown)} unknown; expected "
            "train, validation or test. Fix: rename, or drop the column for a split stratified by "
            "group"
        )
    split = [SPLIT_NAMES[name] for name in said]
    if gone := [name for name in SPLITS if name not in split and name != "validation"]:
        raise DataError(
            f"metadata: no {' and no '.join(gone)} images; got {', '.join(sorted(set(split)))}. "
            f"Fix: call some of the others {' and some '.join(gone)}, or name no split at all, for "
            "one that is stratified by group"
        )
    return np.array(split, dtype=object)
