"""Final shards of the synthetic table: planned beforehand, written as soon as their rows exist.

Blocks (`blocks`) are written as they come. A shard holds up to `rows_per_shard` consecutive rows of
one group; once blocks hold all of them, they are gathered from these files, which can then go. What
a shard contains is thus decided by the plan alone, whatever was cut off, repeated or written late
by a killed driver's workers. A small note beside each shard says what was written: an attempt that
goes on reads the notes, and no image.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.errors import DamagedError, DataError
from raysynth.groups.groups import Groups
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.files import open_storage, read_json, write_atomic
from raysynth.storage.hashes import sha256_of
from raysynth.storage.tables import read_parts, read_table, to_parquet, with_groups
from raysynth.synthesis.specs import ROW
from raysynth.terminal import masked

MANIFEST = ".manifest.json"
"""Such a name is no data to who opens the folder as a data set (Hugging Face's `datasets`, Arrow).
"""
BEFORE = "manifest.json"
"""The same of versions before."""
NOTES = "notes"
"""Folder of what is known of each shard, while some are missing."""
READERS = 32
"""Notes that are read at a time: an object store takes its time for each."""


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


def plan_shards(ranges: Iterable[tuple[int, int, int]], rows_per_shard: int) -> list[Shard]:
    """Shards `group-<g>-<nnnnn>.parquet` of a plan; `ranges`: see `plan.group_ranges`."""
    return [
        Shard(
            file=f"group-{group}-{number:05d}.parquet",
            group=group,
            start=first,
            count=min(rows_per_shard, stop - first),
        )
        for group, start, stop in ranges
        for number, first in enumerate(range(start, stop, rows_per_shard))
    ]


def write_shard(
    folder: str, shard: Shard, blocks: Mapping[str, np.ndarray], groups: Groups
) -> ShardRecord:
    """Gather a shard's rows from block files and write it, whole, and then a note of it.

    Parameters
    ----------
    blocks : path or URI of a block file -> the rows of the plan that it is trusted for.

    Raises
    ------
    DataError
        If a block file does not hold what its name says.
    """
    parts = [_rows_of(folder, file, rows) for file, rows in blocks.items()]
    table = pa.concat_tables(parts, promote_options="permissive")  # groups of before: int32
    table = table.sort_by(ROW.name).drop_columns([ROW.name])
    table = table.cast(with_groups(table.schema, groups))
    data = to_parquet(table)
    write_atomic(f"{folder}/{shard.file}", data)
    digest = hashlib.sha256(data).hexdigest()
    record = ShardRecord(shard.file, shard.group, table.num_rows, digest)
    write_atomic(f"{folder}/{NOTES}/{shard.file}.json", note_of(record, len(data)))
    return record


def note_of(record: ShardRecord, size: int) -> bytes:
    """The note of a shard of so many bytes: by it the shard is believed, unread."""
    return json.dumps({**asdict(record), "bytes": size}).encode()


def _rows_of(folder: str, file: str, rows: np.ndarray) -> pa.Table:
    """Those rows of one block file."""
    table = read_table(folder, files=[file])
    there = table[ROW.name].to_numpy()
    order = np.argsort(there)
    place = np.searchsorted(there, rows, sorter=order)
    found = place < len(there)
    found[found] = there[order[place[found]]] == rows[found]
    if not found.all():
        raise DamagedError(
            f"{masked(file)}: {np.sum(~found)} generated row(s) are missing, e.g. "
            f"{rows[~found][0]}; expected what its name says. Fix: delete it, and run again: they "
            "are drawn again",
            file,
        )
    return table.take(order[place])


def existing_records(
    folder: str, shards: Sequence[Shard], sizes: Mapping[str, int]
) -> dict[int, ShardRecord]:
    """The records of shards that an earlier attempt completed, by their place in `shards`.

    `sizes`: bytes of the files below the folder, see `sizes_below`.
    """
    notes = _notes(folder, sizes)
    found = {}
    for place, shard in enumerate(shards):
        if shard.file not in sizes:
            continue
        note = notes.get(shard.file, {})
        if (note.get("bytes"), note.get("rows")) == (sizes[shard.file], shard.count):
            found[place] = ShardRecord(shard.file, shard.group, shard.count, note["sha256"])
        elif record := existing_record(folder, shard):  # a kill came between it and its note
            found[place] = record
    return found


def _notes(folder: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What `write_shard` noted of each shard; a note that cannot be read is none."""
    names = [file for file in sizes if file.startswith(f"{NOTES}/")]
    with ThreadPoolExecutor(READERS) as readers:
        notes = readers.map(partial(_note, folder), names)
    return {note["file"]: note for note in notes if note}


def _note(folder: str, name: str) -> dict[str, Any]:
    try:
        note = read_json(f"{folder}/{name}")
    except DataError:
        return {}
    if not isinstance(note, dict):
        return {}
    record = {key: value for key, value in note.items() if key != "bytes"}
    return note if _is_record(record) else {}


def existing_record(folder: str, shard: Shard) -> ShardRecord | None:
    """The record of a shard, by reading all of it, or None: not there, or not whole."""
    storage, path = open_storage(f"{folder}/{shard.file}")
    try:
        data = storage.cat_file(path)
        rows = pq.ParquetFile(pa.BufferReader(data)).metadata.num_rows
    except (pa.ArrowException, OSError, ValueError):
        return None
    if rows != shard.count:
        return None
    return ShardRecord(shard.file, shard.group, rows, hashlib.sha256(data).hexdigest())


def write_manifest(folder: str, records: Sequence[ShardRecord], facts: Mapping[str, Any]) -> None:
    """Write manifest.json, last: from here on the folder is a synthetic table."""
    ordered = [asdict(record) for record in sorted(records, key=lambda r: r.file)]
    rows = sum(record.rows for record in records)
    manifest = {"rows": rows, "shards": ordered, "facts": dict(facts)}
    write_atomic(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1).encode())


def read_manifest(folder: str) -> dict[str, Any] | None:
    """The manifest of a synthetic table, or None while there is none.

    Raises
    ------
    DataError
        It is no manifest: cut off, or of another shape, or with shards outside its folder.
    """
    path = f"{folder}/{MANIFEST}"
    manifest = read_json(path)
    if manifest is None:
        path = f"{folder}/{BEFORE}"
        manifest = read_json(path)
    if manifest is None:
        return None
    shards = manifest.get("shards") if isinstance(manifest, dict) else None
    whole = (
        isinstance(shards, list)
        and all(_is_record(shard) for shard in shards)
        and len({shard["file"] for shard in shards}) == len(shards)
        and manifest.get("rows") == sum(shard["rows"] for shard in shards)
        and isinstance(manifest.get("facts"), dict)
    )
    if not whole:
        raise DataError(
            f"{masked(path)}: not the manifest of a synthetic table; expected rows, facts and "
            "shards {file, group, rows, sha256} in this folder. Fix: delete it, and run again"
        )
    return dict(manifest)


def _is_record(shard: Any) -> bool:
    """Whether a manifest's entry is a ShardRecord of a file in the manifest's own folder."""
    kinds = {"file": str, "group": int, "rows": int, "sha256": str}
    return (
        isinstance(shard, dict)
        and shard.keys() == kinds.keys()
        and all(type(shard[name]) is kind for name, kind in kinds.items())
        and re.fullmatch(r"[^/\\\0]+\.parquet", shard["file"]) is not None
        and shard["rows"] >= 0
    )


def shard_files(folder: str) -> list[str]:
    """Paths or URIs of the shards that the manifest vouches for, by group and number.

    Raises
    ------
    DataError
        If there is no manifest: the table is not complete.
    """
    return [f"{folder}/{record.file}" for record in shard_records(folder)]


def shard_records(folder: str) -> list[ShardRecord]:
    """The shards that the manifest vouches for; raises DataError as `shard_files`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(
            f"{masked(folder)}: no {MANIFEST}; expected a finished synthetic table. Fix: run the "
            "synthesis stage (again)"
        )
    return [ShardRecord(**shard) for shard in manifest["shards"]]


def read_shards(folder: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The synthetic table below a folder, or some of its columns, in id order within a group.

    Raises
    ------
    DataError
        A shard is missing, cut off or not the one that the manifest describes (DamagedError).
    """
    parts = list(read_shard_parts(folder, columns))
    if not parts:
        return SYNTHETIC.empty_table().select(list(columns or SYNTHETIC.names))
    try:
        return pa.concat_tables(parts, promote_options="permissive")  # labels of before: int32
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{masked(folder)}: the shards do not fit together ({str(error)[:200]}); expected the "
            "columns of one synthetic table. Fix: delete them, and run again"
        ) from None


def read_shard_parts(folder: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """As `read_shards`, a shard at a time.

    Rows are compared with the manifest, and, where images are read, the file's sha256 too: then
    its bytes are needed in any case.
    """
    for record in shard_records(folder):
        yield read_shard(folder, record, columns)


def read_shard(folder: str, record: ShardRecord, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard of a synthetic table; raises as `read_shards`."""
    path = f"{folder}/{record.file}"
    if (columns is None or "image" in columns) and record.sha256:
        _check_bytes(path, record)
    (part,) = read_parts(folder, columns, [path])
    if part.num_rows != record.rows:
        raise DamagedError(
            f"{masked(path)}: {part.num_rows} rows, expected {record.rows} (its {MANIFEST}). "
            "Fix: delete it, and run again: it is made again",
            path,
        )
    return part


def _check_bytes(path: str, record: ShardRecord) -> None:
    """Refuse a shard whose content is another one than was written."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise DataError(
            f"{masked(path)}: cannot be read ({masked(str(error))}); expected a shard of "
            f"{record.rows} rows. Fix: delete {MANIFEST} beside it, and run again"
        ) from error
    if digest != record.sha256:
        raise DamagedError(
            f"{masked(path)}: its content has sha256 {digest[:12]}..., expected "
            f"{record.sha256[:12]}... (its {MANIFEST}): it was changed after it was written. Fix: "
            "delete it, and run again: it is made again",
            path,
        )
