"""folder: images and `metadata.csv` or `metadata.parquet` (the Hugging Face ImageFolder layout).

Columns: `file_name` (relative to the folder), `label`, `attribute`, and optionally `split`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa

from raysynth.datasets.files import deal_splits, read_files, require_files
from raysynth.errors import DataError

REQUIRED = ("file_name", "label", "attribute")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
EXPECTED_TREE = """expected
  <dataset.path>/metadata.csv      file_name,label,attribute[,split]
  <dataset.path>/images/0001.jpg   any sub-folders, named in file_name"""


@dataclass(frozen=True)
class Folder:
    """A folder or URI of images with their metadata.

    `validation_share` and `test_share` are used when the metadata has no `split` column: every
    group is divided from the seed. `image_size` (pixels) makes all images squares of that side.
    """

    path: str
    validation_share: float = 0.1
    test_share: float = 0.2
    image_size: int | None = None
    seed: int = 0

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values, sorted."""
        return _names(self._metadata()["label"])

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, sorted."""
        return _names(self._metadata()["attribute"])

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

        Raises
        ------
        DataError
            The metadata is missing, lacks a column, has empty or doubled entries, names files that
            are not there or that lie outside the folder.
        """
        frame = self._metadata()
        require_files(
            self.path, [str(name) for name in frame["file_name"]], "the metadata", EXPECTED_TREE
        )
        label, attribute = _codes(frame["label"]), _codes(frame["attribute"])
        if "split" in frame:
            split = _read_splits(frame["split"])
        else:
            group = label * (attribute.max() + 1) + attribute
            split = deal_splits(group, self.validation_share, self.test_share, self.seed)
        return pa.table(
            {
                "id": pa.array(frame["file_name"].astype(str).tolist(), pa.string()),
                "label": pa.array(label, pa.int32()),
                "attribute": pa.array(attribute, pa.int32()),
                "split": pa.array(split, pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | None]:
        """Encoded 8-bit RGB image of each row; None where the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), self.image_size)

    def _metadata(self) -> pd.DataFrame:
        filesystem, root = fsspec.core.url_to_fs(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {EXPECTED_TREE}")
        for name, read in (("metadata.csv", _read_csv), ("metadata.parquet", pd.read_parquet)):
            if filesystem.exists(f"{root}/{name}"):
                with filesystem.open(f"{root}/{name}", "rb") as file:
                    return self._checked(_read(read, file, f"{self.path}/{name}"), name)
        raise DataError(
            f"dataset.path: no metadata.csv or metadata.parquet in {self.path}; {EXPECTED_TREE}"
        )

    def _checked(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        where = f"{self.path}/{name}"
        missing = [column for column in REQUIRED if column not in frame]
        if missing:
            raise DataError(
                f"{where}: column(s) {', '.join(missing)} missing; got "
                f"{', '.join(map(str, frame.columns))}; expected {', '.join(REQUIRED)} and "
                "optionally split. Fix: rename or add the column"
            )
        empty = frame[list(REQUIRED)].isna().any(axis=1)
        if empty.any():
            raise DataError(
                f"{where}: {int(empty.sum())} row(s) with an empty {'/'.join(REQUIRED)}, the first "
                f"is row {int(np.flatnonzero(empty)[0]) + 1}. Fix: fill or remove them"
            )
        if frame.empty:
            raise DataError(f"{where}: no rows; {EXPECTED_TREE}")
        return frame


def _read_csv(file: Any) -> pd.DataFrame:
    """Only empty cells are missing: `None` and `NA` may be names."""
    frame: pd.DataFrame = pd.read_csv(file, keep_default_na=False, na_values=[""])
    return frame


def _read(read: Any, file: Any, where: str) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = read(file)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(f"{where}: cannot be read as a table: {error}") from None
    return frame


def _names(column: pd.Series) -> tuple[str, ...]:
    return tuple(str(value) for value in sorted(column.unique()))


def _codes(column: pd.Series) -> np.ndarray:
    values = sorted(column.unique())
    return column.map({value: i for i, value in enumerate(values)}).to_numpy(np.int64)


def _read_splits(column: pd.Series) -> list[str]:
    unknown = sorted({str(s) for s in column if str(s).lower() not in SPLIT_NAMES})
    if unknown:
        raise DataError(
            f"metadata: split {', '.join(unknown)} unknown; expected train, validation or test. "
            "Fix: rename, or drop the column for a split stratified by group"
        )
    return [SPLIT_NAMES[str(split).lower()] for split in column]
