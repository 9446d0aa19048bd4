"""SDEdit's sources: which real image is edited for which spec, and how the two come together.

Meng et al. 2022 (arXiv 2108.01073): a real image is noised part of the way and denoised from there.
The images of a class's aligned group are edited under the prompts of all groups of the class, so
that the groups differ by what the words ask for and by nothing else. Images travel with the specs,
from one file of the real table at a time; no process ever holds all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from raysynth.cluster.workers import TASK_CPUS
from raysynth.errors import DataError
from raysynth.groups.groups import Groups, aligned_groups
from raysynth.storage.files import remove
from raysynth.storage.tables import read_parts, split_files, write_table

SOURCE_IMAGE = "source_image"
"""Column of encoded images (PNG bytes) beside the specs."""


def deal_sources(
    clusters: pa.Table, groups: Groups, counts: Sequence[int] | np.ndarray, seed: int
) -> dict[int, list[str]]:
    """Group -> ids of the real images that are edited for it.

    Every class's aligned images are shuffled and dealt to its groups in turn: no image is edited
    for two groups, else their synthetic images would share garments, faces or backgrounds.

    Parameters
    ----------
    clusters : columns id, group; one row per training image.
    counts : [G] training images per group.

    Raises
    ------
    DataError
        A class's aligned group has fewer images than the class has groups.
    """
    ids = np.array(clusters["id"].to_pylist(), dtype=object)
    group = clusters["group"].to_numpy()
    dealt: dict[int, list[str]] = {}
    for label, aligned in enumerate(aligned_groups(np.asarray(counts), groups).tolist()):
        members = np.sort(ids[group == aligned].astype(str))
        of_class = groups.of_label(label)
        if len(members) < len(of_class):
            raise DataError(
                f"generator=edit: group {groups.name(aligned)} has {len(members)} training "
                f"image(s) to edit; expected at least {len(of_class)}, one for each group of its "
                "class. Fix: more images, or generator=shared"
            )
        shuffled = np.random.default_rng(_key(seed, label)).permutation(members)
        for place, g in enumerate(of_class):
            dealt[g] = shuffled[place :: len(of_class)].tolist()
    return dealt


def write_specs(specs: pa.Table, real: str, folder: str) -> None:
    """Write specs as Parquet files below `folder`, each row with the image that it edits.

    A small Ray task per file of the real table writes the rows that edit its images; rows are found
    by their number, so their order does not matter. What was in the folder goes.

    Raises
    ------
    DataError
        A source is not among the real table's training images.
    """
    remove(folder)
    files = split_files(real, "train")
    write = ray.remote(num_cpus=TASK_CPUS, max_retries=3)(attach_sources)
    shared = ray.put(specs)
    written = ray.get(
        [
            write.remote(shared, real, name, f"{folder}/specs-{number:05d}.parquet")
            for number, name in enumerate(files)
        ]
    )
    if sum(written) != specs.num_rows:
        raise DataError(
            f"{real}: {specs.num_rows - sum(written)} of {specs.num_rows} source images are "
            "missing; expected every clustered image in the real table. Fix: run ingest and "
            "clustering again"
        )


def attach_sources(specs: pa.Table, real: str, file: str, path: str) -> int:
    """Write those specs that edit an image of one file of the real table; returns how many."""
    sources = pc.unique(specs["source"])
    parts = list(read_parts(real, ["id", "image"], [file], sources))
    if not parts:
        return 0
    images = pa.concat_tables(parts)
    place = pc.index_in(specs["source"], value_set=images["id"].combine_chunks())
    mine = specs.filter(pc.is_valid(place))
    encoded = pc.struct_field(images["image"], "bytes").cast(pa.large_binary())
    data = encoded.take(place.drop_null())  # images may be taken often: over 2 GiB
    write_table(mine.append_column(SOURCE_IMAGE, data), path)
    return int(mine.num_rows)


def _key(seed: int, label: int) -> int:
    digest = hashlib.blake2b(f"sources/{seed}/{label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
