"""hub: Parquet files with a column of images, as the Hugging Face hub holds data sets.

`dataset.path` is `hf://datasets/OWNER/NAME`, with `@refs%2Fconvert%2Fparquet` behind it what the
hub made of any data set, or a folder in that layout (`data/train-00000-of-00001.parquet`). Columns
of the `datasets` features: `Image`, and `ClassLabel`, texts or numbers for label and attribute.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.datasets.captions import CAPTION, no_column
from raysynth.datasets.files import clipped, open_folder, some
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.metadata import as_text, require_scalar
from raysynth.datasets.pictures import Unreadable, to_rgb_bytes
from raysynth.datasets.rows import SPLIT_NAMES, OwnImages, checked, listing_of
from raysynth.datasets.settings import COLUMN, DatasetConfig
from raysynth.errors import DataError
from raysynth.storage.files import open_storage

PAIR = ("label", "attribute")
FEATURES = b"huggingface"
"""Key of a Parquet schema's metadata where `datasets` writes its features."""
EXPECTED = """expected
  <dataset.path>/data/train-00000-of-00001.parquet   columns image, label, attribute
  <dataset.path>/data/test-00000-of-00001.parquet    (others: dataset.label, dataset.attribute)"""
SPLIT = re.compile(rf"(?:^|[/._-])({'|'.join(SPLIT_NAMES)})(?=[/._-]|$)")


@dataclass(frozen=True)
class Hub(OwnImages):
    """Rows of Parquet files; `columns`: those of label and attribute."""

    columns: tuple[str, str] = PAIR

    @classmethod
    def of(cls, config: DatasetConfig, seed: int) -> Self:
        """That of a configuration."""
        plain = OwnImages.of(config, seed)
        pair = (config.label or PAIR[0], config.attribute or PAIR[1])
        return cls(**plain.__dict__, columns=pair)

    def listing(self) -> pa.Table:
        """`id` (`file#row`), `label, attribute: int32`, `split`; no image is read.

        Raises
        ------
        DataError
            No Parquet file, files of several configurations, or columns that are not there.
        """
        return listing_of(self.rows, self.rows["file_name"].tolist(), self)

    def read(self) -> pd.DataFrame:
        """Labels and attributes of every file's rows, by name."""
        filesystem, root = open_folder(self.path)
        files = self._files(filesystem, root)
        split = _splits(self.path, files)
        frames = []
        for name in files:
            with filesystem.open(f"{root}/{name}", "rb") as file:
                parquet = pq.ParquetFile(file)
                frame = self._columns(parquet, f"{self.path}/{name}")
            frame["file_name"] = [f"{name}#{row}" for row in range(len(frame))]
            frames.append(frame if split is None else frame.assign(split=split[name]))
        whole = pd.concat(frames, ignore_index=True)
        return checked(whole, self.path, self.required, EXPECTED)

    def _files(self, filesystem: Any, root: str) -> list[str]:
        if not filesystem.isdir(root):
            why = f"is not a folder; {EXPECTED}"
            if self.path.startswith("hf://"):
                why = (
                    "is not there, or the hub does not answer (HF_HUB_OFFLINE, a proxy, a token); "
                    "expected hf://datasets/OWNER/NAME. Fix: check the name and the network"
                )
            raise DataError(f"dataset.path: {self.path} {why}")
        found = (name.removeprefix(root).lstrip("/") for name in filesystem.find(root))
        files = sorted(name for name in found if name.endswith(".parquet"))
        if not files:
            raise DataError(f"dataset.path: no Parquet file in {self.path}; {EXPECTED}")
        return files

    def _columns(self, parquet: pq.ParquetFile, where: str) -> pd.DataFrame:
        schema = parquet.schema_arrow
        image_column(schema, where)
        features = features_of(schema)
        table: dict[str, Any] = {}
        for key, name in zip(PAIR, self.columns, strict=True):
            if name in schema.names:
                field = schema.field(name)
                require_scalar(field, where)
                column = parquet.read(columns=[name])[name]
                table[key] = _named(column, features.get(name, {}))
            elif key in self.required:
                unknown = "; or dataset.attributes=unknown" * (key == "attribute")
                raise DataError(
                    f"{where}: no column {clipped(name)}; got {some(schema.names)}; expected one "
                    f"of names. Fix: dataset.{key}=<a column>{unknown}"
                )
            else:
                table[key] = [None] * parquet.metadata.num_rows
        if self.captions:
            if self.captions not in schema.names:
                raise no_column(where, self.captions, schema.names)
            require_scalar(schema.field(self.captions), where)
            table[CAPTION] = as_text(parquet.read(columns=[self.captions])[self.captions])
        return pd.DataFrame(table, dtype=object)

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why it cannot be read."""
        wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)  # file -> (row, place)
        for place, name in enumerate(rows["id"].to_pylist()):
            file, _, row = name.rpartition("#")
            wanted[file].append((int(row), place))
        found: list[bytes | Unreadable] = [Unreadable("not read")] * len(rows)
        storage, root = open_storage(self.path)
        for name, places in wanted.items():
            with storage.open(f"{root}/{name}", "rb") as file:
                read = _pictures(pq.ParquetFile(file), [row for row, _ in places], name)
            for (_, place), data in zip(places, read, strict=True):
                found[place] = self._image(data)
        return found

    def _image(self, data: bytes | None) -> bytes | Unreadable:
        if data is None:
            return Unreadable("no bytes in the table")
        try:
            return to_rgb_bytes(data, self.image_size, self.megapixels)
        except Exception as error:  # broken pictures make decoders raise whatever they like
            return Unreadable(clipped(str(error) or type(error).__name__))


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """Column -> its `datasets` feature; empty where none is written."""
    try:
        told = json.loads((schema.metadata or {})[FEATURES])
        return dict(told["info"]["features"])
    except (KeyError, ValueError, TypeError):
        return {}


def image_column(schema: pa.Schema, where: str) -> str:
    """The column of images: the first `Image` feature, else of bytes, alone or with a path.

    Raises
    ------
    DataError
        There is none.
    """
    features = features_of(schema)
    typed = [n for n in schema.names if (features.get(n) or {}).get("_type") == "Image"]
    plain = [field.name for field in schema if _holds_bytes(field.type)]
    if not (found := typed or plain):
        raise DataError(
            f"{where}: no column of images; got {some(schema.names)}; expected one of encoded "
            "images (bytes, or {bytes, path}). Fix: files that hold their images, as `datasets` "
            "writes them (push_to_hub, to_parquet)"
        )
    return str(found[0])


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _named(column: pa.ChunkedArray, feature: Any) -> list[str | None]:
    """Names of a column's values; `ClassLabel`: those of its numbers, -1 is none."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not pa.types.is_integer(column.type):
        return as_text(column)
    known = {number: str(name) for number, name in enumerate(names)}
    return [known.get(value) for value in column.to_pylist()]


def _pictures(parquet: pq.ParquetFile, rows: Sequence[int], where: str) -> list[bytes | None]:
    """Bytes of the images of some rows; of the others' row groups nothing is read."""
    column = image_column(parquet.schema_arrow, where)
    sizes = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    ends = np.cumsum(sizes)
    group = np.searchsorted(ends, rows, side="right")
    found: dict[int, bytes | None] = {}
    for number in np.unique(group).tolist():
        images = parquet.read_row_group(number, columns=[column])[column]
        start = int(ends[number]) - sizes[number]
        for row in (row for row, own in zip(rows, group, strict=True) if own == number):
            value = images[row - start].as_py()
            found[row] = value.get("bytes") if isinstance(value, dict) else value
    return [found[row] for row in rows]


def _splits(path: str, files: Sequence[str]) -> dict[str, str] | None:
    """File -> split, by its name or its folder's; None: no name says one.

    Raises
    ------
    DataError
        Some say one and others do not, or folders beside each other have the same splits.
    """
    said = {name: SPLIT.findall(name.lower()) for name in files}
    if not any(said.values()):
        return None
    if silent := [name for name, found in said.items() if not found]:
        raise DataError(
            f"dataset.path: {path}: {some(silent)} says no split, as other files do; expected "
            "train, validation or test in every name. Fix: rename it, or dataset.path=<one folder>"
        )
    folders = {SPLIT.sub("", posixpath.dirname(name.lower())).rstrip("/") for name in files}
    if len(folders) > 1:
        raise DataError(
            f"dataset.path: {path} holds several data sets ({some(sorted(folders))}). Fix: "
            f"dataset.path={path.rstrip('/')}/<one of them>"
        )
    return {name: SPLIT_NAMES[found[-1]] for name, found in said.items()}


def _fits(below: Below) -> bool:
    return any(name.endswith(".parquet") for name in below.names)


PART = Layout(
    title="A data set of the hub",
    source="Hugging Face `datasets` (Lhoest et al. 2021)",
    reads="Parquet files with a column of images: hf://datasets/OWNER/NAME, or a folder",
    open=Hub.of,
    is_anybodys=True,
    captions=COLUMN,
    fits=_fits,
    pair=PAIR,
)
