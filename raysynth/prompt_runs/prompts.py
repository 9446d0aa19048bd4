"""A file of prompts: which images are asked for, of which adapters, from which seeds."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.datasets.files import clipped, reaching
from raysynth.errors import DataError
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.storage.files import open_storage
from raysynth.terminal import shown

COLUMNS = ("prompt", "negative", "adapter", "seed", "count")
OTHERS = {"negative_prompt": "negative"}
"""What a column may be called, too."""
EXPECTED = "expected a column `prompt`, and if wanted negative, adapter, seed, count"
MOST = 2**63
"""Seeds are below it: they are kept as 64 bits with a sign."""


@dataclass(frozen=True)
class Prompts:
    """The rows of a file, and the adapters that it is drawn with."""

    rows: pd.DataFrame
    """`prompt`, `negative` (text), `adapter` (as it is written; "": every one), `seed` (-1: by the
    run's), `count`."""
    given: tuple[str, ...]
    """Adapters' files and folders that the command named."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Those, and what rows name that looks like a path."""
        named = (each for each in dict.fromkeys(self.rows["adapter"]) if is_path(each))
        return tuple(dict.fromkeys((*self.given, *named)))

    @property
    def images(self) -> int:
        """Images of one adapter for every row."""
        return int(self.rows["count"].sum())


def is_path(adapter: str) -> bool:
    """Whether a cell is a path, not a name."""
    return "/" in adapter or adapter.endswith(".safetensors")


def read_prompts(config: GenerateConfig) -> Prompts:
    """The rows of `config.prompts`.

    Raises
    ------
    DataError
        It is not there or no table; a column is missing, or a cell is not what it should be.
    """
    path = config.prompts
    with reaching(path):
        storage, name = open_storage(path)
        if not storage.isfile(name):
            raise DataError(f"PROMPTS: {clipped(path)} is not a file; {EXPECTED}")
        data = bytes(storage.cat_file(name))
    table = _table(path, data).rename(columns=OTHERS)
    if "prompt" not in table:
        got = ", ".join(map(str, table.columns)) or "none"
        raise DataError(f"PROMPTS: {clipped(path)}: columns {clipped(got)}; {EXPECTED}")
    if table.empty:
        raise DataError(f"PROMPTS: {clipped(path)}: no rows; {EXPECTED}")
    return Prompts(_checked(path, table, config.count), config.adapters)


def _table(path: str, data: bytes) -> pd.DataFrame:
    try:
        if data[:4] == b"PAR1":
            wanted = [*COLUMNS, *OTHERS]
            names = pq.read_schema(pa.BufferReader(data)).names
            there = [name for name in names if name in wanted] or names[:1]
            return pq.read_table(pa.BufferReader(data), columns=there).to_pandas()
        return pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, na_values=[""])
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(
            f"PROMPTS: {clipped(path)}: cannot be read as Parquet or CSV ({clipped(error)}); "
            f"{EXPECTED}"
        ) from None


def _checked(path: str, table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The columns with their defaults, each of its type."""
    texts = {name: _texts(table, name) for name in ("prompt", "negative", "adapter")}
    texts["adapter"] = [_placed(path, each) for each in texts["adapter"]]
    if blank := np.flatnonzero([not each for each in texts["prompt"]]).tolist():
        raise DataError(
            f"PROMPTS: {clipped(path)}: {len(blank)} row(s) without a prompt, the first is row "
            f"{blank[0] + 1}. Fix: fill or remove them"
        )
    return pd.DataFrame(
        {
            **texts,
            "seed": _numbers(path, table, "seed", -1, 0),
            "count": _numbers(path, table, "count", count, 1),
        }
    )


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    if name not in table:
        return [""] * len(table)
    cells = table[name]
    return ["" if pd.isna(each) else " ".join(str(each).split()) for each in cells]


def _placed(path: str, adapter: str) -> str:
    """A path of a cell as it is from anywhere: it is relative to the file of prompts."""
    if not is_path(adapter) or "://" in adapter or os.path.isabs(adapter):
        return adapter
    whole = f"{path.rpartition('/')[0]}/{adapter}"
    return whole if "://" in path else os.path.normpath(whole)


def _numbers(path: str, table: pd.DataFrame, name: str, default: int, least: int) -> list[int]:
    """Whole numbers from `least` on; the default where a cell is empty."""
    found = []
    for number, cell in enumerate(table[name] if name in table else [None] * len(table)):
        value = default if pd.isna(cell) else _whole(cell)
        if value is None or (value != default and not least <= value < MOST):
            raise DataError(
                f"PROMPTS: {clipped(path)}: row {number + 1}: {name} {clipped(cell)!r}; expected a "
                f"whole number from {least} on. Fix: correct it"
            )
        found.append(value)
    return found


def _whole(cell: Any) -> int | None:
    """A cell as a whole number; None: it is none."""
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() else None
    try:
        return int(cell)
    except (TypeError, ValueError):
        return None


def adapters_of(
    prompts: Prompts, names: Sequence[str], of_path: Mapping[str, Sequence[str]]
) -> list[tuple[str, ...]]:
    """The adapters that each row is drawn with; ("",) where there are none: the base by itself.

    Parameters
    ----------
    names : of all adapters; of_path : path as it was given -> those that it is.

    Raises DataError where a row names none of them.
    """
    every = tuple(dict.fromkeys(name for each in prompts.given for name in of_path.get(each, ())))
    found = []
    for number, cell in enumerate(prompts.rows["adapter"]):
        own = of_path.get(cell, (cell,)) if cell else every or ("",)
        if strange := next((name for name in own if name and name not in names), None):
            known = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise DataError(
                f"PROMPTS: row {number + 1}: adapter {clipped(shown(strange))!r}; expected one of "
                f"{known or 'none: no ADAPTER was given'}, or a path. Fix: correct it"
            )
        found.append(tuple(own))
    return found
