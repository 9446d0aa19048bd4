"""Images of the real and the synthetic table, decoded once into arrays that workers share.

An `ImageSet` put into Ray's object store reaches every worker of a node without a copy; it is
read-only there, so what is written to must be copied first.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysynth.cluster.capacity import local_cpus
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.networks.images import Data, ImageSet
from raysynth.progress import Progress
from raysynth.storage import tables
from raysynth.synthesis.shards import read_shard_parts

COLUMNS = ("id", "image", "label", "group")
DECODED_AT_ONCE = 64
"""Images that a thread decodes at once."""


def load_data(size: int | None, real: str, synthetic: str, selection: str, groups: Groups) -> Data:
    """Everything that trainings see, from the folders or URIs of its stages.

    `size`: see `load_real`.
    """
    train = load_real(real, "train", size)
    return Data(
        train,
        load_real(real, "validation", train.size),
        load_synthetic(synthetic, selection, train.size),
        groups,
    )


def load_real_data(size: int | None, real: str, groups: Groups) -> Data:
    """What trainings on real images alone see: `synthetic` is empty."""
    train = load_real(real, "train", size)
    nothing = np.zeros(0, np.int64)
    empty = ImageSet(train.pixels[:0], nothing, nothing, train.ids[:0])
    return Data(train, load_real(real, "validation", train.size), empty, groups)


def say_shortage(ratio: float, data: Data, progress: Progress) -> None:
    """Say so when a ratio asks for more synthetic images than a balanced draw can give."""
    asked = round(ratio * len(data.train))
    there = int(data.synthetic.counts(data.groups.count).min()) * data.groups.count
    if asked > there:
        progress.say(
            f"  synthetic ratio {ratio:g} asks for {asked} images; {there} group-balanced ones "
            f"were kept: all of them are used (ratio {there / len(data.train):.2f})"
        )


def load_real(real: str, split: str, size: int | None) -> ImageSet:
    """One split of the real table below the folder or URI `real`.

    `size`: side in pixels to resize to; None keeps the images' own.

    Raises
    ------
    DataError
        When the split is missing, or the images are not square and of one size.
    """
    files = tables.split_files(real, split)
    parts = tables.read_parts(real, COLUMNS, files)
    return _image_set(parts, tables.count_rows(real, files), size, real)


def load_synthetic(synthetic: str, selection: str, size: int) -> ImageSet:
    """The selected synthetic images, in the order of their shards, resized to `size` pixels.

    Only shards that the synthetic folder's manifest lists are read.
    """
    chosen = tables.read_table(selection, ["id", "kept"])
    if chosen["id"].null_count or chosen["kept"].null_count:
        raise DataError(
            f"{selection}: empty cells in the selection; expected an id and a yes or no for every "
            "image. Fix: delete the folder and run again"
        )
    kept = chosen.filter(chosen["kept"])["id"].combine_chunks()
    parts = (
        part.filter(pc.is_in(part["id"], value_set=kept))
        for part in read_shard_parts(synthetic, COLUMNS)
    )
    return _image_set(parts, len(kept), size, synthetic)


def _image_set(parts: Iterator[pa.Table], count: int, size: int | None, where: str) -> ImageSet:
    """The `count` images of the parts, of which one at a time is held as it is encoded."""
    pixels, place, rest = np.zeros((0, 3, size or 0, size or 0), np.uint8), 0, []
    with ThreadPoolExecutor(local_cpus()) as pool:  # PIL decodes and resizes without the GIL
        for part in parts:
            rest.append(part.drop_columns(["image"]))
            cuts = range(0, part.num_rows, DECODED_AT_ONCE)
            columns = [part["image"].slice(first, DECODED_AT_ONCE) for first in cuts]
            for planes in pool.map(partial(_planes, size=size, where=where), columns):
                if not place:
                    pixels = np.empty((count, *planes.shape[1:]), np.uint8)
                if planes.shape[1:] != pixels.shape[1:]:
                    raise _not_square(where)
                if place + len(planes) > count:
                    raise _not_there(where, count, place + len(planes))
                pixels[place : place + len(planes)] = planes
                place += len(planes)
    pixels = pixels[:place]
    table = pa.concat_tables(rest, promote_options="permissive")
    return ImageSet(
        pixels,
        table["label"].to_numpy().astype(np.int64),
        table["group"].to_numpy().astype(np.int64),
        np.array(table["id"].to_pylist(), dtype=np.str_),
    )


def _planes(column: pa.ChunkedArray, size: int | None, where: str) -> NDArray[np.uint8]:
    """[n, 3, H, H] pixels of an `image` column."""
    try:
        pixels = tables.decode_images(column, size)
    except tables.SizesDifferError:
        raise _not_square(where) from None
    if pixels.shape[1] != pixels.shape[2]:
        raise _not_square(where)
    return pixels.transpose(0, 3, 1, 2)


def _not_there(where: str, expected: int, found: int) -> DataError:
    return DataError(
        f"{where}: {found:,} images are there; expected {expected:,}, each once. Fix: delete the "
        "folders of the stages synthesis and selection of the run and run again"
    )


def _not_square(where: str) -> DataError:
    return DataError(
        f"{where}: the images are not square and of one size, as a classifier needs them. Fix: "
        "classifier.image_size=<pixels>, e.g. 224"
    )
