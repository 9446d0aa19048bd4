"""Final shards of the synthetic table: planned beforehand, written as soon as their rows exist.

Ray Data writes one small file per block, as blocks come. A shard holds up to `rows_per_shard`
consecutive ids of one group; once the checkpoint lists all of them, they are gathered from the
block files. What a shard contains is thus decided by the specs alone, whatever was cut off,
repeated or written late by a killed driver's workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.runs import write_atomic
from raysynth.tables import SYNTHETIC, read_table, with_groups

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """A shard to be written: its file name, its group, its rows' ids in order."""

    file: str
    group: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is on disk, as the manifest lists it."""

    file: str
    group: int
    rows: int
    sha256: str


def plan_shards(specs: pa.Table, rows_per_shard: int) -> list[Shard]:
    """Shards `group-<g>-<nnnnn>.parquet` of specs that are sorted by group."""
    ids_of: dict[int, list[str]] = {}
    for name, group in zip(specs["id"].to_pylist(), specs["group"].to_pylist(), strict=True):
        ids_of.setdefault(group, []).append(name)
    return [
        Shard(
            f"group-{group}-{number:05d}.parquet", group, tuple(ids[start : start + rows_per_shard])
        )
        for group, ids in sorted(ids_of.items())
        for number, start in enumerate(range(0, len(ids), rows_per_shard))
    ]


def write_shard(
    folder: str, shard: Shard, block_of: Mapping[str, str], groups: Groups
) -> ShardRecord:
    """Gather a shard's rows from block files and write it, whole.

    Parameters
    ----------
    block_of : id -> path or URI of the block file that is trusted for it (each id in one).

    Raises
    ------
    DataError
        If a block file does not hold what the checkpoint says.
    """
    files = sorted({block_of[name] for name in shard.ids})
    wanted = {file: [n for n in shard.ids if block_of[n] == file] for file in files}
    parts = []
    for file in files:
        table = read_table(folder, files=[file]).select(SYNTHETIC.names)
        row = {name: number for number, name in enumerate(table["id"].to_pylist())}
        lost = [name for name in wanted[file] if name not in row]
        if lost:
            raise DataError(
                f"{file}: {len(lost)} generated row(s) are missing, e.g. {lost[0]}; expected what "
                "the checkpoint beside it lists. Fix: delete the run's .partial folder of the "
                "synthesis stage and run again"
            )
        parts.append(table.take([row[name] for name in wanted[file]]))
    table = pa.concat_tables(parts).sort_by("id").cast(with_groups(SYNTHETIC, groups))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    write_atomic(f"{folder}/{shard.file}", data)
    return ShardRecord(shard.file, shard.group, table.num_rows, hashlib.sha256(data).hexdigest())


def existing_record(folder: str, shard: Shard) -> ShardRecord | None:
    """The record of a shard that an earlier attempt completed, or None."""
    filesystem, path = fsspec.core.url_to_fs(f"{folder}/{shard.file}")
    if not filesystem.exists(path):
        return None
    digest = hashlib.sha256(filesystem.cat_file(path)).hexdigest()
    return ShardRecord(shard.file, shard.group, len(shard.ids), digest)


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
