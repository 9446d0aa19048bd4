"""Some images of a run through an encoder and the plain statistics, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysynth.fidelity.encoder import Embed
from raysynth.fidelity.statistics import border, plain
from raysynth.groups.balance import evenly_of_each
from raysynth.storage.tables import decode_images, read_parts, read_table, split_files
from raysynth.synthesis.shards import read_shard_parts

AT_ONCE = 64
"""Images decoded and embedded at once."""
SPLITS = ("train", "validation")
"""Real images that are looked at; those of test never are."""


@dataclass(frozen=True)
class Tables:
    """Folders or URIs of the stages that are read."""

    real: str
    synthetic: str
    selection: str


@dataclass(frozen=True)
class Chosen:
    """Ids of the images that are looked at, and [G] how many there are of each kind."""

    real: tuple[str, ...]
    kept: tuple[str, ...]
    rejected: tuple[str, ...]
    sizes_kept: NDArray[np.int64]
    sizes_rejected: NDArray[np.int64]

    @property
    def made(self) -> tuple[str, ...]:
        """Ids of the generated ones."""
        return self.kept + self.rejected


@dataclass(frozen=True)
class Seen:
    """N images: ids, features [N, D], statistics `plain` [N, 5], `border` [N, 6], group, cluster.

    `kept`: [N] whether selection kept them; real ones all are. Clusters of real ones are not known
    here (-1).
    """

    ids: tuple[str, ...]
    features: NDArray[np.float32]
    plain: NDArray[np.float32]
    border: NDArray[np.float32]
    group: NDArray[np.int64]
    cluster: NDArray[Any]
    kept: NDArray[np.bool_]

    def of(self, group: int) -> NDArray[np.int64]:
        """Rows of a group that are real or kept."""
        return self._rows[group] if group in self._rows else np.zeros(0, np.int64)

    @cached_property
    def _rows(self) -> dict[int, NDArray[np.int64]]:
        groups = np.unique(self.group).tolist()
        return {g: np.flatnonzero((self.group == g) & self.kept) for g in groups}


def listed(tables: Tables) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Ids and groups of the real images, the kept and the rejected ones.

    Real ones are those of training and of validation, of which a small group has more.
    """
    files = [file for split in SPLITS for file in split_files(tables.real, split)]
    selection = read_table(tables.selection, ["id", "group", "kept"])
    kept = selection.filter(selection["kept"])
    rejected = selection.filter(pc.invert(selection["kept"]))
    return read_table(tables.real, ["id", "group"], files), kept, rejected


def choose(tables: Tables, most: int, groups: int) -> Chosen:
    """Which images are looked at: of each group at most `most` real, kept and rejected ones.

    Evenly spaced in the order of their tables, in which images lie by cluster.
    """
    real, kept, rejected = listed(tables)
    return Chosen(
        real=_some(real, most),
        kept=_some(kept, most),
        rejected=_some(rejected, most),
        sizes_kept=np.bincount(kept["group"].to_numpy(), minlength=groups),
        sizes_rejected=np.bincount(rejected["group"].to_numpy(), minlength=groups),
    )


def _some(table: pa.Table, most: int) -> tuple[str, ...]:
    rows = evenly_of_each(table["group"].to_numpy(), most)
    return tuple(table["id"].take(pa.array(rows)).to_pylist())


def look_at_real(tables: Tables, chosen: Chosen, embed: Embed, side: int) -> Seen:
    """The chosen real images."""
    ids = pa.array(chosen.real, pa.string())
    files = [file for split in SPLITS for file in split_files(tables.real, split)]
    return _seen(read_parts(tables.real, ["id", "image", "group"], files, ids), embed, side, None)


def look_at_made(tables: Tables, chosen: Chosen, embed: Embed, side: int) -> Seen:
    """The chosen generated images, at the side of the real ones."""
    ids = pa.array(chosen.made, pa.string())
    columns = ["id", "image", "group", "cluster"]
    parts = (
        part.filter(pc.is_in(part["id"], value_set=ids))
        for part in read_shard_parts(tables.synthetic, columns)
    )
    return _seen(parts, embed, side, frozenset(chosen.kept))


def _seen(parts: Iterator[pa.Table], embed: Embed, side: int, kept: frozenset[str] | None) -> Seen:
    """`kept`: ids of those that were; None: all."""
    found: list[tuple[NDArray[np.float32], ...]] = []
    rest: list[pa.Table] = []
    for part in parts:
        rest.append(part.drop_columns(["image"]))
        for start in range(0, part.num_rows, AT_ONCE):
            pixels = decode_images(part["image"].slice(start, AT_ONCE), side)
            found.append((embed(pixels), plain(pixels), border(pixels)))
    table = pa.concat_tables(rest)
    features, statistics, ring = (np.concatenate(column) for column in zip(*found, strict=True))
    known = "cluster" in table.column_names
    ids = table["id"].to_pylist()
    return Seen(
        ids=tuple(ids),
        features=features,
        plain=statistics,
        border=ring,
        group=table["group"].to_numpy().astype(np.int64),
        cluster=table["cluster"].to_numpy() if known else np.full(table.num_rows, -1),
        kept=np.array([kept is None or each in kept for each in ids], bool),
    )
