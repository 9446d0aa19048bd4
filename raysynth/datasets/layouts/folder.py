"""folder: images and `metadata.csv` or `metadata.parquet` (the Hugging Face ImageFolder layout).

Columns: `file_name` (relative to the folder), `label`, `attribute`, and optionally `split`. Where
`dataset.attributes` is `unknown`, `attribute` may be missing, or empty in some rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from raysynth.datasets.files import deal_splits, open_folder, require_files, some
from raysynth.datasets.layout import Layout
from raysynth.datasets.metadata import ordered, read_metadata
from raysynth.datasets.pictures import MEGAPIXELS, Unreadable, read_files
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DataError
from raysynth.groups.groups import UNKNOWN
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
EXPECTED_TREE = """expected
  <dataset.path>/metadata.csv      file_name,label,attribute[,split]
  <dataset.path>/images/0001.jpg   any sub-folders, named in file_name"""


@dataclass(frozen=True)
class Folder:
    """A folder or URI of images with their metadata.

    `validation_share` and `test_share` are used when the metadata has no `split` column: every
    group is divided from the seed. `image_size` (pixels) makes all images squares of that side.
    `attributes`: every image must have one; else they may be unknown.
    """

    path: str
    validation_share: float = 0.1
    test_share: float = 0.2
    image_size: int | None = None
    seed: int = 0
    megapixels: float = MEGAPIXELS
    attributes: bool = True

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values as they are written; numbers by value, others as text."""
        return _names(self._metadata()["label"])

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, as those of the labels; of known ones, if there are."""
        return _names(self._metadata()["attribute"]) or (NO_ATTRIBUTE,)

    @property
    def label_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return tuple(name.replace("_", " ") for name in self.label_names)

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return tuple(name.replace("_", " ") for name in self.attribute_names)

    @property
    def aligned(self) -> tuple[str, ...]:
        """None: the largest group of each class is its aligned one."""
        return ()

    def listing(self) -> pa.Table:
        """`id` (= file_name), `label, attribute: int32`, `split`; no image is opened.

        An attribute that is not known is -1; 0 where none of any image is.

        Raises
        ------
        DataError
            The metadata is missing, lacks a column, has empty or doubled entries, names files that
            are not there or that lie outside the folder.
        """
        frame = self._metadata()
        names = [name.replace("\\", "/") for name in frame["file_name"]]  # as Windows writes them
        require_files(self.path, names, "the metadata", EXPECTED_TREE)
        label, attribute = _codes(frame["label"]), _codes(frame["attribute"])
        if frame["attribute"].isna().all():
            attribute = np.zeros_like(label)
        if "split" in frame:
            split = _read_splits(frame["split"])
        else:
            unknown = (attribute == UNKNOWN).any()  # then a group of its own in every class
            group = label * (attribute.max() + 1 + unknown) + attribute + unknown
            split = deal_splits(group, self.validation_share, self.test_share, self.seed)
        return pa.table(
            {
                "id": pa.array(names, pa.string()),
                "label": pa.array(label, pa.int32()),
                "attribute": pa.array(attribute, pa.int32()),
                "split": pa.array(split, pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size, self.megapixels)

    def _metadata(self) -> pd.DataFrame:
        filesystem, root = open_folder(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {EXPECTED_TREE}")
        optional = ("split",) if self.attributes else ("split", "attribute")
        for name in ("metadata.csv", "metadata.parquet"):
            frame = read_metadata(self.path, name, self._required, EXPECTED_TREE, optional)
            if frame is not None:
                if "attribute" not in frame:
                    frame = frame.assign(attribute=None)
                return self._checked(frame, name)
        raise DataError(
            f"dataset.path: no metadata.csv or metadata.parquet in {self.path}; {EXPECTED_TREE}"
        )

    @property
    def _required(self) -> tuple[str, ...]:
        return REQUIRED if self.attributes else REQUIRED[:2]

    def _checked(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        where = f"{self.path}/{name}"
        empty = frame[list(self._required)].isna().any(axis=1)
        if empty.any():
            unknown = "; or dataset.attributes=unknown, where attributes are" * self.attributes
            raise DataError(
                f"{where}: {int(empty.sum())} row(s) with an empty {'/'.join(self._required)}, the "
                f"first is row {int(np.flatnonzero(empty)[0]) + 1}. Fix: fill or remove "
                f"them{unknown}"
            )
        if frame.empty:
            raise DataError(f"{where}: no rows; {EXPECTED_TREE}")
        for column in ("label", "attribute"):
            values = frame[column].nunique()
            if values > FEW and values * ROWS_PER_VALUE > len(frame):
                raise DataError(
                    f"{where}: {column}: {values:,} different values in {len(frame):,} rows "
                    f"({some(frame[column].unique())}); expected a few names. Fix: cut a "
                    "continuous value into ranges, such as young and old"
                )
        return frame


def _names(column: pd.Series) -> tuple[str, ...]:
    return tuple(ordered(column.dropna().unique().tolist()))


def _codes(column: pd.Series) -> np.ndarray:
    place = {name: number for number, name in enumerate(_names(column))}
    return column.map(place).fillna(UNKNOWN).to_numpy(np.int64)


def _read_splits(column: pd.Series) -> list[str]:
    said = ["" if pd.isna(name) else str(name).lower() for name in column]
    if unknown := sorted(set(said) - set(SPLIT_NAMES)):
        raise DataError(
            f"metadata: split {some(name or '(empty)' for name in unknown)} unknown; expected "
            "train, validation or test. Fix: rename, or drop the column for a split stratified by "
            "group"
        )
    split = [SPLIT_NAMES[name] for name in said]
    if gone := [name for name in SPLITS if name not in split]:
        raise DataError(
            f"metadata: the split column has no {' and no '.join(gone)} rows. Fix: call some of "
            f"the other rows {' and some '.join(gone)} (validation is best cut from train), or "
            "drop the column for a split stratified by group"
        )
    return split


def _open(config: DatasetConfig, seed: int) -> Folder:
    shares = (config.validation_share, config.test_share)
    known = config.attributes == "given"
    size = config.image_size
    return Folder(str(config.path), *shares, size, seed, config.max_megapixels, known)


PART = Layout(
    title="Own images",
    source="Hugging Face's ImageFolder layout",
    reads="images, and metadata.csv or .parquet: file_name, label, attribute[, split]",
    open=_open,
    names_masks=True,
)
