"""Stage 1: the data set's images into the real table, streamed by Ray Data."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.workers import busy_task_cpus
from raysynth.datasets import captions, damage
from raysynth.datasets.files import LEFT_OUT, clipped, some
from raysynth.datasets.layout import Dataset
from raysynth.datasets.listing import list_dataset, require_images, split_counts
from raysynth.datasets.pictures import Unreadable
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DamagedError, DataError
from raysynth.groups.groups import Groups
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import exists, remove, write_atomic
from raysynth.storage.hashes import note_hashes
from raysynth.storage.tables import (
    IMAGE,
    REAL,
    SPLITS,
    read_footers,
    read_parts,
    read_table,
    size_of,
    to_parquet,
    with_groups,
)

ROWS_PER_FILE = 1000
REASONS = 5
"""Unreadable images whose reasons are said."""
REPEATED = "repeated"
UNREADABLE = b"unreadable"
"""In a file's metadata: how many of its rows' images could not be read, where any could not."""


def ingest(
    config: DatasetConfig, seed: int, work: str, progress: Progress, cpus: float = 1.0
) -> dict[str, Any]:
    """Write `work/<split>-<number>.parquet` in tasks of `cpus`; what is there is not made again.

    Returns the manifest's facts: `rows`, `counts` per split and group, `skipped` file names,
    `left_out`: what is not in the table and why, and `repeated`: pictures that are there twice,
    both in words, and `sides`: the shortest and the longest of the images written now, pixels
    (empty: none); with `dataset.captions`, `captions`: training images that have one.

    Raises
    ------
    DataError
        Images that cannot be read (unless they are skipped), or too few of some group.
    """
    dataset, groups, listing = list_dataset(config, seed)
    checked = partial(require_images, config, groups=groups)
    taken = Taken(dataset, groups, str(config.path), config.on_error == "skip", checked)
    if config.captions is None:
        return take_in(taken, listing, work, progress, cpus)
    captions.keep(listing, work)
    own, images = captions.caption_counts(listing)
    progress.say(f"  captions: {own:,} of {images:,} training images have one")
    listing = listing.drop_columns([captions.CAPTION])
    return {**take_in(taken, listing, work, progress, cpus), "captions": own}


@dataclass(frozen=True)
class Taken:
    """The images that a table is made of."""

    dataset: Dataset
    groups: Groups
    path: str
    """Where they lie, for messages."""
    skips: bool
    """Whether those that cannot be read are left out."""
    check: Callable[[pa.Table], None]
    """Refuses a listing of what could be read."""
    advice: str = ", or set dataset.on_error=skip to leave them out"
    """What else can be done about such images."""
    compares: bool = True
    """Whether a picture that is there twice is told of."""


def take_in(
    taken: Taken, listing: pa.Table, work: str, progress: Progress, cpus: float = 1.0
) -> dict[str, Any]:
    """Write the table of a listing; as `ingest`, which lists a configuration's data set."""
    dataset, groups = taken.dataset, taken.groups
    chunks = _chunks(listing)
    todo = _missing(chunks, work)
    sides, hashes = _write(todo, dataset, groups, work, progress, cpus)
    skipped = _skipped(chunks, work)
    why = _why(skipped, listing, dataset)
    if skipped and not taken.skips:
        _refuse(skipped, why, chunks, taken, work)
    counts = _written_counts(taken, listing, skipped)
    left_out = _left_out(listing, why)
    for file in (_file_of(chunk) for chunk in chunks):
        if file not in hashes:
            hashes[file] = _read_hashes(work, file)
    repeated = _repeated(chunks, skipped, hashes) if taken.compares else ""
    for sentence in filter(None, (left_out, repeated)):
        progress.say(f"  {sentence}")
    return {
        "rows": len(listing) - len(skipped),
        "groups": groups.to_dict(),
        "counts": {split: counts[split].tolist() for split in SPLITS},
        "skipped": sorted(skipped),
        LEFT_OUT: left_out,
        REPEATED: repeated,
        "sides": [min(sides), max(sides)] if sides else [],
    }


def _write(
    todo: list[pa.Table],
    dataset: Dataset,
    groups: Groups,
    work: str,
    progress: Progress,
    cpus: float,
) -> tuple[set[int], dict[str, list[bytes]]]:
    """Write the chunks' files; the images' sides, and file -> its images' hashes."""
    sides: set[int] = set()
    hashes: dict[str, list[bytes]] = {}
    files: dict[str, str] = {}
    if not todo:
        return sides, hashes
    blocks = ray.data.from_arrow(todo).map_batches(
        _write_chunk,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"dataset": dataset, "groups": groups, "work": work},
        num_cpus=cpus,
    )
    total, done = sum(len(chunk) for chunk in todo), 0
    for batch in blocks.iter_batches(batch_size=1, batch_format="pyarrow"):
        done += batch["rows"][0].as_py()
        sides.update(batch["sides"][0].as_py())
        file = batch["file"][0].as_py()
        hashes[file], files[file] = batch["hashes"][0].as_py(), batch["sha256"][0].as_py()
        progress.update("images", done, total)
    note_hashes(work, files)
    return sides, hashes


def _chunks(listing: pa.Table) -> list[pa.Table]:
    """Rows of one split, at most ROWS_PER_FILE, with the `file` they go to."""
    split = np.asarray(listing["split"].to_pylist())
    chunks = []
    for name in SPLITS:
        rows = np.flatnonzero(split == name)
        for number, start in enumerate(range(0, len(rows), ROWS_PER_FILE)):
            part = listing.take(rows[start : start + ROWS_PER_FILE])
            file = pa.array([f"{name}-{number:05d}.parquet"] * len(part), pa.string())
            chunks.append(part.append_column("file", file))
    return chunks


def _missing(chunks: list[pa.Table], work: str) -> list[pa.Table]:
    """The chunks whose file is not there, or holds another number of rows than was written."""
    return [chunk for chunk in chunks if not _is_written(chunk, f"{work}/{_file_of(chunk)}", work)]


def _is_written(chunk: pa.Table, path: str, work: str) -> bool:
    if not exists(path):
        return False
    try:
        (footer,) = read_footers(work, [path])
    except DamagedError:
        return False
    return footer.num_rows + int((footer.metadata or {}).get(UNREADABLE, 0)) == len(chunk)


def _file_of(chunk: pa.Table) -> str:
    return str(chunk["file"][0].as_py())


def _write_chunk(chunk: pa.Table, dataset: Dataset, groups: Groups, work: str) -> pa.Table:
    """In a Ray worker: decode or compose the rows' images and write their file."""
    images = dataset.images(chunk)
    good = [image for image in images if not isinstance(image, Unreadable)]
    kept = chunk.filter(pa.array([not isinstance(image, Unreadable) for image in images]))
    column = pa.array([{"bytes": image, "path": None} for image in good], IMAGE)
    table = pa.table(
        [column if field.name == "image" else kept[field.name].cast(field.type) for field in REAL],
        schema=with_groups(REAL, groups),
    )
    if len(good) < len(images):
        unread = {UNREADABLE: str(len(images) - len(good))}
        table = table.replace_schema_metadata(table.schema.metadata | unread)
    file = _file_of(chunk)
    damage.keep(dataset, kept, good, f"{work}/{file}")  # first: a table that is there is whole
    data = to_parquet(table)
    write_atomic(f"{work}/{file}", data)
    sides = {side for image in good for side in size_of(image)}
    ends = [min(sides), max(sides)] if sides else []
    return pa.table(
        {
            "file": [file],
            "rows": [len(images)],
            "sides": pa.array([ends], pa.list_(pa.int64())),
            "hashes": pa.array([_hashes(column)], pa.list_(pa.binary())),
            "sha256": [hashlib.sha256(data).hexdigest()],
        }
    )


def _skipped(chunks: list[pa.Table], work: str) -> set[str]:
    """Listed images that no file holds: those that could not be read."""
    listed = {i for chunk in chunks for i in chunk["id"].to_pylist()}
    return listed - set(read_table(work, columns=["id"])["id"].to_pylist())


def _why(skipped: set[str], listing: pa.Table, dataset: Dataset) -> str:
    """How many cannot be read, and why not the first: read again, for workers only count them."""
    if not skipped:
        return ""
    first = sorted(skipped)[:REASONS]
    rows = listing.take(pc.index_in(pa.array(first), value_set=listing["id"].combine_chunks()))
    reasons = (
        f"{clipped(name)}: {read.reason if isinstance(read, Unreadable) else 'readable again'}"
        for name, read in zip(first, dataset.images(rows), strict=True)
    )
    more = "; ..." if len(skipped) > len(first) else ""
    return f"{len(skipped):,} image(s) that cannot be read ({'; '.join(reasons)}{more})"


def _refuse(skipped: set[str], why: str, chunks: list[pa.Table], taken: Taken, work: str) -> None:
    """Name the broken images; their files are dropped, to be made again when they are mended."""
    for chunk in chunks:
        if skipped.intersection(chunk["id"].to_pylist()):
            remove(f"{work}/{_file_of(chunk)}")
    raise DataError(f"dataset: {taken.path} holds {why}. Fix: replace or remove them{taken.advice}")


def _left_out(listing: pa.Table, why: str) -> str:
    """What the reader left out and what cannot be read, as one sentence; empty: nothing."""
    said = (listing.schema.metadata or {}).get(LEFT_OUT.encode(), b"").decode()
    if not why:
        return said
    return f"{said}; {why}" if said else f"left out: {why}"


def _hashes(image: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """SHA-256 of each image of a column."""
    return [hashlib.sha256(x.as_buffer()).digest() for x in pc.struct_field(image, "bytes")]


def _read_hashes(work: str, file: str) -> list[bytes]:
    """Those of a file that was written before this start."""
    parts = read_parts(work, ["image"], [f"{work}/{file}"])
    return [key for part in parts for key in _hashes(part["image"])]


def _repeated(chunks: list[pa.Table], skipped: set[str], hashes: dict[str, list[bytes]]) -> str:
    """A warning of pictures that are in the table twice, byte for byte; empty: none is.

    In two splits: an accuracy on them is memory, and the likeness from which on a generated image
    counts as a copy, taken from validation images, is out of reach. With two labels: one is wrong.
    """
    named: dict[tuple[bytes, str], list[str]] = defaultdict(list)  # picture, split -> ids
    label_of: dict[bytes, set[int]] = defaultdict(set)
    for chunk in chunks:
        rows = [row for row in chunk.to_pylist() if row["id"] not in skipped]
        for row, key in zip(rows, hashes[rows[0]["file"]] if rows else [], strict=True):
            named[key, row["split"]].append(row["id"])
            label_of[key].add(row["label"])
    said = []
    for split in SPLITS[1:]:
        twice = [ids for (key, of), ids in named.items() if of == split and (key, "train") in named]
        if ids := [i for each in twice for i in each]:
            said.append(f"{len(ids):,} {split} image(s) are training images too ({some(ids)})")
    if ids := [i for (key, _), each in named.items() if len(label_of[key]) > 1 for i in each]:
        said.append(f"{len(ids):,} image(s) are there with different labels ({some(ids)})")
    fix = "Fix: leave each picture in one split, with one label"
    return f"the same picture twice: {'; '.join(said)}. {fix}" if said else ""


def _written_counts(taken: Taken, listing: pa.Table, skipped: set[str]) -> dict[str, np.ndarray]:
    keep = np.array([i not in skipped for i in listing["id"].to_pylist()])
    written = listing.filter(pa.array(keep))
    taken.check(written)
    return split_counts(written, taken.groups)


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `ingest`."""
    cpus = busy_task_cpus(work.config[ResourcesConfig])
    return ingest(work.config[DatasetConfig], work.config.seed, work.folder, work.progress, cpus)
