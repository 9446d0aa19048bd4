"""The first stage: the folders' images as a real table, with their captions beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from raysynth.adapter_runs.folders import read_folders
from raysynth.adapter_runs.settings import TrainConfig
from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.workers import busy_task_cpus
from raysynth.datasets.ingest import Taken, take_in
from raysynth.errors import DamagedError
from raysynth.sides import Sides
from raysynth.stages.stage import Work
from raysynth.storage.files import open_storage, write_atomic
from raysynth.storage.tables import read_parts, size_of, split_files
from raysynth.terminal import clipped, masked

CAPTIONS = ".captions.feather"
"""Such a name, and not Parquet: whoever opens the folder as a data set gets the images alone."""


@dataclass(frozen=True)
class Trained:
    """The images of each adapter, as the stage has written them."""

    names: tuple[str, ...]
    """Of adapters."""
    table: pa.Table
    """`id`, `label`, `caption` of every image; label: position in `names`."""

    def of(self, label: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids and captions of an adapter's images."""
        own = self.table.filter(pc.equal(self.table["label"], label))
        return tuple(own["id"].to_pylist()), tuple(own["caption"].to_pylist())


def build(work: Work) -> dict[str, Any]:
    """Read every image once; facts: rows, groups, adapters {name: images}, own captions."""
    config = work.config
    assert isinstance(config, TrainConfig)
    folders = read_folders(config)
    listing = folders.listing()
    taken = Taken(
        folders,
        folders.groups,
        config.images,
        skips=False,
        check=lambda listing: None,
        advice="",
        compares=False,
    )
    cpus = busy_task_cpus(config[ResourcesConfig])
    facts = take_in(taken, listing, work.folder, work.progress, cpus)
    sink = pa.BufferOutputStream()
    feather.write_feather(listing.select(["id", "label", "caption"]), sink, compression="zstd")
    write_atomic(f"{work.folder}/{CAPTIONS}", sink.getvalue())
    counts = np.bincount(listing["label"].to_numpy(), minlength=len(folders.names)).tolist()
    return {
        "rows": facts["rows"],
        "groups": facts["groups"],
        "adapters": dict(zip(folders.names.values(), counts, strict=True)),
        "own_captions": folders.own,
        "counts": facts["counts"],
    }


def read_trained(folder: str, names: tuple[str, ...]) -> Trained:
    """What `build` wrote to a folder or URI; raises DamagedError where it is not whole."""
    path = f"{folder}/{CAPTIONS}"
    storage, name = open_storage(path)
    try:
        table = feather.read_table(pa.BufferReader(storage.cat_file(name)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedError(
            f"{masked(path)}: cannot be read ({clipped(str(error))}); expected the images' "
            "captions. Fix: run again: it is made again",
            path,
        ) from error
    return Trained(names, table)


def sizes_in(folder: str) -> dict[str, Sides]:
    """Image -> height and width, of the table that `build` wrote to a folder or URI."""
    found = {}
    for part in read_parts(folder, ["id", "image"], split_files(folder, "train")):
        images = pc.struct_field(part["image"], "bytes")
        for name, image in zip(part["id"].to_pylist(), images, strict=True):
            width, height = size_of(image.as_py())
            found[name] = (height, width)
    return found
