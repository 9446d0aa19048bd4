"""Harm to files: cut, emptied, replaced by a valid one with fewer rows, weights that are no number.

A file is replaced, never written into: a copy of it elsewhere stays whole.
"""

from __future__ import annotations

import io
import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save

METADATA = "__metadata__"
WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by safetensors' name of its type."""
Harm = Callable[[Path, random.Random], str]
"""Does it to a file; says what was done."""


def cut(path: Path, dice: random.Random) -> str:
    """Leave the beginning of a file."""
    data = path.read_bytes()
    kept = dice.randrange(1, max(2, len(data)))
    _replace(path, data[:kept])
    return f"cut to {kept} of {len(data)} bytes"


def empty(path: Path, dice: random.Random) -> str:
    """Leave nothing in it."""
    _replace(path, b"")
    return "emptied"


def fewer(path: Path, dice: random.Random) -> str:
    """A valid file with less in it: rows of a table, tensors, entries of a list or an object."""
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path).read()
        kept = dice.randrange(0, max(1, table.num_rows))
        buffer = io.BytesIO()
        pq.write_table(table.slice(0, kept), buffer)
        _replace(path, buffer.getvalue())
        return f"{kept} of {table.num_rows} rows"
    if path.suffix == ".safetensors":
        tensors, about = _tensors(path)
        gone = dice.choice(sorted(tensors))
        del tensors[gone]
        _replace(path, save(tensors, about))
        return f"without tensor {gone}"
    if path.suffix == ".json":
        value = json.loads(path.read_bytes())
        said = _without_one(value, dice)
        _replace(path, json.dumps(value).encode())
        return said
    return cut(path, dice)


def poison(path: Path, dice: random.Random) -> str:
    """One number of a file's weights becomes none; not a byte else changes."""
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:begin])
    kinds = {name: WIDTH[each["dtype"]] for name, each in tensors.items() if name != METADATA}
    sizes = {name: tensors[name]["data_offsets"] for name in kinds}
    name = dice.choice(sorted(name for name, (start, end) in sizes.items() if end > start))
    (start, end), width = sizes[name], kinds[name]
    place = begin + start + width * dice.randrange((end - start) // width)
    number = dice.choice((math.nan, math.inf)) if width == 4 else math.nan
    infinite = struct.pack("<f", number) if width == 4 else b"\xff" * (width - 1) + b"\x7f"
    data[place : place + width] = infinite
    _replace(path, bytes(data))
    return f"{number} in {name}"


def _without_one(value: object, dice: random.Random) -> str:
    """Take an entry out of a record; out of a shards' manifest one that leaves it consistent."""
    if isinstance(value, dict) and isinstance(value.get("shards"), list) and value["shards"]:
        gone = value["shards"].pop(dice.randrange(len(value["shards"])))
        value["rows"] -= gone["rows"]
        return f"without {gone['file']}"
    if isinstance(value, dict) and isinstance(value.get("stages"), dict) and value["stages"]:
        value = value["stages"]
    if isinstance(value, dict) and value:
        gone = dice.choice(sorted(value))
        del value[gone]
        return f"without {gone}"
    if isinstance(value, list) and value:
        value.pop(dice.randrange(len(value)))
        return "without one entry"
    return "as it was"


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    with safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name).clone() for name in names}, file.metadata()


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)
