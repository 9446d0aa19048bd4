"""Harm to files: cut, emptied, replaced by a valid one with fewer rows, weights that are no number.

A file is replaced, never written into: a copy of it elsewhere stays whole.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save

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
    """One number of a file's weights becomes none, the file's size stays."""
    tensors, about = _tensors(path)
    name = dice.choice(sorted(name for name, tensor in tensors.items() if tensor.numel()))
    number = dice.choice((float("nan"), float("inf")))
    tensors[name].view(-1)[dice.randrange(tensors[name].numel())] = number
    before = path.stat().st_size
    _replace(path, save(tensors, about))
    return f"{number} in {name}" + ("" if path.stat().st_size == before else ", another size")


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


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)
