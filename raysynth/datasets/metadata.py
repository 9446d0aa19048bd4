"""A metadata table as it is written: names are text, whatever they look like as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.datasets.files import clipped, open_folder, some
from raysynth.errors import DataError


def read_metadata(
    path: str, name: str, required: Sequence[str], tree: str, optional: Sequence[str] = ()
) -> pd.DataFrame | None:
    """Text columns of a CSV or Parquet file in a folder or URI: the required and optional ones.

    Only empty cells (missing in the frame) are empty: `None` and `NA` may be names. None when there
    is no such file. `tree`: the layout that is expected, for messages.

    Raises
    ------
    DataError
        The file is a folder or no table, a row has more cells than the header, a column is missing,
        there twice, or holds no text or number per row.
    """
    filesystem, root = open_folder(path)
    where = f"{path}/{name}"
    if not filesystem.exists(f"{root}/{name}"):
        return None
    if not filesystem.isfile(f"{root}/{name}"):
        raise DataError(f"{where}: a file was expected, got a folder or pipe; {tree}")
    with filesystem.open(f"{root}/{name}", "rb") as file:
        try:
            read = _read_parquet if name.endswith(".parquet") else _read_csv
            frame, header = read(file, (*required, *optional), where)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"{where}: cannot be read as a table: {clipped(error)}; {tree}"
            ) from None

    if missing := [name for name in required if name not in frame]:
        raise DataError(
            f"{where}: column(s) {', '.join(missing)} missing; got {clipped(', '.join(header))}; "
            f"expected {', '.join(required)}. Fix: rename or add the column; {tree}"
        )
    return frame


def _read_csv(file: Any, columns: Sequence[str], where: str) -> tuple[pd.DataFrame, list[str]]:
    # The header as a row: pandas would take the first column of longer rows as their index.
    table = pd.read_csv(file, header=None, dtype=str, keep_default_na=False, na_values=[""])
    header = [name if isinstance(name, str) else "" for name in table.iloc[0]]
    _refuse_twice(header, columns, where)
    frame = table.iloc[1:].reset_index(drop=True).set_axis(header, axis=1)
    return frame[[name for name in columns if name in header]], header


def _read_parquet(file: Any, columns: Sequence[str], where: str) -> tuple[pd.DataFrame, list[str]]:
    parquet = pq.ParquetFile(file)
    header = parquet.schema_arrow.names
    _refuse_twice(header, columns, where)
    there = [name for name in columns if name in header]
    for name in there:
        require_scalar(parquet.schema_arrow.field(name), where)
    table = parquet.read(columns=there)
    return pd.DataFrame({name: as_text(table[name]) for name in there}, dtype=object), header


def _refuse_twice(header: Sequence[str], columns: Sequence[str], where: str) -> None:
    if twice := [name for name in columns if list(header).count(name) > 1]:
        raise DataError(
            f"{where}: column {some(twice)} is there twice; expected it once. Fix: remove one"
        )


def require_scalar(field: pa.Field, where: str) -> None:
    """Refuse a column of what is no text and no number; DataError."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    refused = {
        "a list": pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind),
        "bytes": pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind),
        f"a {clipped(kind)}": pa.types.is_nested(kind),
    }
    got = next((words for words, found in refused.items() if found), "")
    if got:
        raise DataError(
            f"{where}: {field.name}: a text or a number per row expected, got {got}. Fix: a column "
            "of one name per row"
        )


def as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Each value as pandas prints it: 1, 1.0, True; None where it is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    missing = np.array([value is None for value in column.to_pylist()], bool)
    filled = column.filter(pa.array(~missing)).to_pandas()
    values = iter(filled)
    found = (None if gone else next(values) for gone in missing)
    return [None if value is None or value != value else str(value) for value in found]


def ordered(names: Sequence[str]) -> list[str]:
    """Names in order: by value where all of them are plain numbers (2 before 10), else as text."""
    values = [_number(name) for name in names]
    if any(value is None for value in values):
        return sorted(names)
    return [name for _, name in sorted(zip(values, names, strict=True))]


def _number(name: str) -> float | None:
    """The value of a number that is written as it is printed; None for `01`, `1e3`, `1.10`."""
    for kind in (int, float):
        try:
            value = kind(name)
        except ValueError:
            continue
        if str(value) == name and math.isfinite(value):
            return value
    return None
