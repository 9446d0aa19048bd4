"""Blocks: finished rows of the plan, in files that are there whole or not at all.

A block's name says which rows it holds. Writing it is the commit: a temporary name, then a rename
on disks, one PUT on an object store. Written twice, by an actor that was given up and the one in
its place, it is the same file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.errors import DataError
from raysynth.sides import Sides
from raysynth.storage.files import write_atomic
from raysynth.storage.marks import Maker
from raysynth.storage.tables import read_table, to_parquet
from raysynth.synthesis.encode import encode_rows
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN

FOLDER = "blocks"
RANGE = re.compile(r"rows-(\d+)-(\d+)\.parquet")
SCATTERED = re.compile(r"scattered-[0-9a-f]+\.parquet")
WRITTEN = pa.schema([("file", pa.string()), ("ranges", pa.list_(pa.int64())), COLUMN])
"""What is said of a block: its name, its ranges one after the other, the actors' time."""


@dataclass(frozen=True)
class Block:
    """A block that is on disk."""

    file: str
    ranges: NDArray[np.int64]
    """[R, 2] rows of the plan, from the first of a range up to the last, not among them."""


def ranges_of(rows: np.ndarray) -> NDArray[np.int64]:
    """[R, 2] the ranges that rows of a plan, in any order, make up."""
    rows = np.unique(np.asarray(rows, np.int64))
    breaks = np.flatnonzero(np.diff(rows) != 1)
    first, last = np.append(0, breaks + 1), np.append(breaks, len(rows) - 1)
    return np.stack([rows[first], rows[last] + 1], axis=1) if len(rows) else np.zeros((0, 2), int)


def name_of(ranges: np.ndarray) -> str:
    """The file of a block with these ranges."""
    if len(ranges) == 1:
        start, stop = ranges[0].tolist()
        return f"rows-{start:012d}-{stop:012d}.parquet"
    digest = hashlib.blake2b(np.ascontiguousarray(ranges, "<i8").tobytes(), digest_size=12)
    return f"scattered-{digest.hexdigest()}.parquet"


def write_block(
    drawn: pa.Table, scores: pa.Schema, work: str, maker: Maker, size: Sides | None = None
) -> pa.Table:
    """Scored pixels -> a file in FOLDER below `work`; returns WRITTEN, a row for each block.

    `scores`, `maker`, `size`: see `encode_rows`.
    """
    if not drawn.num_rows:
        return WRITTEN.empty_table()
    rows, spans = encode_rows(drawn, scores, maker, size)
    ranges = ranges_of(rows[ROW.name].to_numpy())
    file = name_of(ranges)
    write_atomic(f"{work}/{FOLDER}/{file}", to_parquet(rows))
    return pa.table([[file], [ranges.ravel().tolist()], [spans]], schema=WRITTEN)


def block_of(file: str, ranges: list[int]) -> Block:
    """A block of what `write_block` said of it."""
    return Block(file, np.array(ranges, np.int64).reshape(-1, 2))


def blocks_among(files: Iterable[str], work: str) -> Iterator[Block]:
    """The blocks among the names of files in FOLDER; what is none of them was left by others."""
    for file in sorted(files):
        if found := RANGE.fullmatch(file):
            yield block_of(file, [int(number) for number in found.groups()])
        elif SCATTERED.fullmatch(file):
            try:
                table = read_table(work, [ROW.name], [f"{work}/{FOLDER}/{file}"])
            except DataError:  # its images are drawn again
                continue
            yield Block(file, ranges_of(table[ROW.name].to_numpy()))
