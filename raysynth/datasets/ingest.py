"""Stage 1: the data set's images into the real table, streamed by Ray Data."""

from __future__ import annotations

import io
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import ray.data
from PIL import Image

from raysynth.config import Config
from raysynth.datasets.files import LEFT_OUT
from raysynth.datasets.listing import Dataset, list_dataset, split_counts
from raysynth.errors import DataError
from raysynth.groups import Groups, require_every_group
from raysynth.progress import Progress
from raysynth.tables import IMAGE, REAL, SPLITS, read_table, with_groups, write_table

ROWS_PER_FILE = 1000


def ingest(config: Config, work: str, progress: Progress) -> dict[str, Any]:
    """Write `work/<split>-<number>.parquet`; what is already there is not made again.

    Returns the manifest's facts: `rows`, `counts` per split and group, `skipped` file names, what
    the reader left out, in words, and `sides`: the shortest and the longest of the images written
    now, pixels (empty: none).
    """
    dataset, groups, listing = list_dataset(config.dataset, config.seed)
    left_out = (listing.schema.metadata or {}).get(LEFT_OUT.encode(), b"").decode()
    if left_out:
        progress.say(f"  {left_out}")
    chunks = _chunks(listing)
    todo = _missing(chunks, work)
    total, done = sum(len(chunk) for chunk in todo), 0
    sides: set[int] = set()
    if todo:
        blocks = ray.data.from_arrow(todo).map_batches(
            _write_chunk,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"dataset": dataset, "groups": groups, "work": work},
        )
        for batch in blocks.iter_batches(batch_size=1, batch_format="pyarrow"):
            done += batch["rows"][0].as_py()
            sides.update(batch["sides"][0].as_py())
            progress.update("images", done, total)
    skipped = _skipped(chunks, work)
    if skipped and config.dataset.on_error == "refuse":
        _refuse(skipped, chunks, config, work)
    counts = _written_counts(listing, skipped, groups)
    return {
        "rows": int(sum(c.sum() for c in counts.values())),
        "groups": groups.to_dict(),
        "counts": {split: counts[split].tolist() for split in SPLITS},
        "skipped": sorted(skipped),
        LEFT_OUT: left_out,
        "sides": [min(sides), max(sides)] if sides else [],
    }


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
    filesystem, root = fsspec.core.url_to_fs(work)
    return [c for c in chunks if not filesystem.exists(f"{root}/{c['file'][0].as_py()}")]


def _write_chunk(chunk: pa.Table, dataset: Dataset, groups: Groups, work: str) -> pa.Table:
    """In a Ray worker: decode or compose the rows' images and write their file."""
    images = dataset.images(chunk)
    good = np.array([image is not None for image in images])
    kept = chunk.filter(pa.array(good))
    column = pa.array(
        [{"bytes": image, "path": None} for image in images if image is not None], IMAGE
    )
    table = pa.table(
        [column if name == "image" else kept[name] for name in REAL.names],
        schema=with_groups(REAL, groups),
    )
    write_table(table, f"{work}/{chunk['file'][0].as_py()}")
    sides = {side for image in images if image is not None for side in _size(image)}
    ends = [min(sides), max(sides)] if sides else []
    return pa.table({"rows": [len(images)], "sides": pa.array([ends], pa.list_(pa.int64()))})


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, from its header."""
    return Image.open(io.BytesIO(image)).size


def _skipped(chunks: list[pa.Table], work: str) -> set[str]:
    """Listed images that no file holds: those that could not be read."""
    listed = {i for chunk in chunks for i in chunk["id"].to_pylist()}
    return listed - set(read_table(work, columns=["id"])["id"].to_pylist())


def _refuse(skipped: set[str], chunks: list[pa.Table], config: Config, work: str) -> None:
    """Name the broken images; their files are dropped, to be made again when they are mended."""
    filesystem, root = fsspec.core.url_to_fs(work)
    for chunk in chunks:
        if skipped.intersection(chunk["id"].to_pylist()):
            filesystem.rm(f"{root}/{chunk['file'][0].as_py()}")
    some = ", ".join(sorted(skipped)[:10]) + (" ..." if len(skipped) > 10 else "")
    raise DataError(
        f"dataset: {len(skipped)} image(s) in {config.dataset.path} cannot be read: {some}. "
        "Fix: replace or remove them, or set dataset.on_error=skip to leave them out"
    )


def _written_counts(listing: pa.Table, skipped: set[str], groups: Groups) -> dict[str, np.ndarray]:
    keep = np.array([i not in skipped for i in listing["id"].to_pylist()])
    counts = split_counts(listing.filter(pa.array(keep)), groups)
    for split in SPLITS:
        require_every_group(counts[split], groups, split)
    return counts
