"""Whether a safetensors file holds what its header says, and numbers alone; no torch."""

from __future__ import annotations

import json
from typing import BinaryIO

import numpy as np

from raysynth.models.headers import LENGTH, tensors_of

PIECE_BYTES = 32 * 2**20
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
BRAIN, EXPONENT = "BF16", 0x7F80
"""A bfloat16 whose exponent is all ones is infinite or no number, as a float32's."""


def fault_of(file: BinaryIO, size: int, *, numbers: bool = True) -> str:
    """What is wrong with a safetensors file of `size` bytes, in words; "": nothing.

    A NaN or an infinity is wrong: whatever is computed with it is neither refused nor right.
    `numbers`: look at all of them; else the header and the file's length alone.
    """
    try:
        shapes = tensors_of(file, size)
    except ValueError as error:
        return f"is no whole safetensors file: {error}"
    if not numbers:
        return ""
    file.seek(0)
    length = int.from_bytes(file.read(LENGTH), "little")
    entries = json.loads(file.read(length))
    for name in sorted(shapes, key=lambda name: int(entries[name]["data_offsets"][0])):
        start, end = entries[name]["data_offsets"]
        file.seek(LENGTH + length + start)
        if strange := _strange(file, shapes[name][0], end - start):
            count = int(np.prod(shapes[name][1], dtype=np.int64))
            return f"has {strange:,} of {count:,} weights that are no finite number, in {name}"
    return ""


def _strange(file: BinaryIO, dtype: str, left: int) -> int:
    """How many of the next `left` bytes' weights are NaN or infinite."""
    found = 0
    while left > 0 and (dtype == BRAIN or dtype in FLOATS):
        piece = file.read(min(left, PIECE_BYTES))
        if not piece:
            break
        if dtype == BRAIN:
            found += int((np.frombuffer(piece, "<u2") & EXPONENT == EXPONENT).sum())
        else:
            found += int((~np.isfinite(np.frombuffer(piece, FLOATS[dtype]))).sum())
        left -= len(piece)
    return found
