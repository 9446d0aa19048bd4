"""Final shards of the synthetic table: planned beforehand, written as soon as their rows exist.

Ray Data writes one small file per block, as blocks come. A shard holds up to `rows_per_shard`
consecutive rows of one group; once the checkpoint lists all of them, they are gathered from the
block files, which can then go. What a shard contains is thus decided by the specs alone, whatever
was cut off, repeated or written late by a killed driver's workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.runs import write_atomic
from raysynth.synthesis.timeline import spans_of
from raysynth.tables import SYNTHETIC, read_table, to_parquet, with_groups

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A shard to be written: its file name, its group, its rows of the plan."""

    file: str
    group: int
    start: int
    count: int


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is on disk, as the manifest lists it."""

    file: str
    group: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """A shard that was just written, and what its block files say of the actors' time."""

    record: ShardRecord
    spans: pa.Table


def plan_shards(group: np.ndarray, rows_per_shard: int) -> list[Shard]:
    """Shards `group-<g>-<nnnnn>.parquet` of a plan sorted by group; `group`: [N] of its rows."""
    values, starts, counts = np.unique(group, return_index=True, return_counts=True)
    return [
        Shard(
            file=f"group-{value}-{number:05d}.parquet",
            group=int(value),
            start=int(first) + offset,
            count=min(rows_per_shard, int(count) - offset),
        )
        for value, first, count in zip(values, starts, counts, strict=True)
        for number, offset in enumerate(range(0, int(count), rows_per_shard))
    ]


def write_shard(
    folder: str, shard: Shard, blocks: Mapping[str, np.ndarray], groups: Groups
) -> Written:
    """Gather a shard's rows from block files and write it, whole.

    Parameters
    ----------
    blocks : path or URI of a block file -> the rows of the plan that it is trusted for.

    Raises
    ------
    DataError
        If a block file does not hold what the checkpoint says.
    """
    parts = [_rows_of(folder, file, rows) for file, rows in blocks.items()]
    table = pa.concat_tables(parts, promote_options="permissive")  # blocks of before: int32 labels
    table = table.sort_by("row")
    spans = spans_of(table["spans"])
    table = table.select(SYNTHETIC.names).cast(with_groups(SYNTHETIC, groups))
    data = to_parquet(table)
    write_atomic(f"{folder}/{shard.file}", data)
    digest = hashlib.sha256(data).hexdigest()
    return Written(ShardRecord(shard.file, shard.group, table.num_rows, digest), spans)


def _rows_of(folder: str, file: str, rows: np.ndarray) -> pa.Table:
    """Those rows of one block file."""
    table = read_table(folder, files=[file])
    there = table["row"].to_numpy()
    order = np.argsort(there)
    place = np.searchsorted(there, rows, sorter=order)
    found = place < len(there)
    found[found] = there[order[place[found]]] == rows[found]
    if not found.all():
        raise DataError(
            f"{file}: {np.sum(~found)} generated row(s) are missing, e.g. {rows[~found][0]}; "
            "expected what the checkpoint beside it lists. Fix: delete the run's .partial folder "
            "of the synthesis stage and run again"
        )
    return table.take(order[place])


def existing_record(folder: str, shard: Shard) -> ShardRecord | None:
    """The record of a shard that an earlier attempt completed, or None."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/{shard.file}")
    if not filesystem.exists(path):
        return None
    digest = hashlib.sha256(filesystem.cat_file(path)).hexdigest()
    return ShardRecord(shard.file, shard.group, shard.count, digest)


def write_manifest(folder: str, records: Sequence[ShardRecord], facts: Mapping[str, Any]) -> None:
    """Write manifest.json, last: from here on the folder is a synthetic table."""
    ordered = [asdict(record) for record in sorted(records, key=lambda r: r.file)]
    rows = sum(record.rows for record in records)
    manifest = {"rows": rows, "shards": ordered, "facts": dict(facts)}
    write_atomic(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1).encode())


def read_manifest(folder: str) -> dict[str, Any] | None:
    """The manifest of a synthetic table, or None while there is none."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/{MANIFEST}")
    return json.loads(filesystem.cat_file(path)) if filesystem.exists(path) else None


def shard_files(folder: str) -> list[str]:
    """Paths or URIs of the shards that the manifest vouches for, by group and number.

    Raises
    ------
    DataError
        If there is no manifest: the table is not complete.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(
            f"{folder}: no {MANIFEST}; expected a finished synthetic table. Fix: run the synthesis "
            "stage (again)"
        )
    return [f"{folder}/{shard['file']}" for shard in manifest["shards"]]


def read_shards(folder: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The synthetic table below a folder, or some of its columns, in id order within a group."""
    return read_table(folder, columns, shard_files(folder))
