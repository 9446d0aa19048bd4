"""Adapters of unchanged folders: what a run made before is taken over, not trained again.

An adapter is a function of its folder's images and captions, of its name, the settings, the base
and the seed, and of nothing else. `origin.json` beside it holds the digest of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from raysynth.adapters.record import RECORD, read_adapter, write_adapter
from raysynth.errors import DataError
from raysynth.finetune.jobs import Job
from raysynth.knobs import digest_of
from raysynth.storage.files import open_storage, read_json, sizes_below, write_atomic
from raysynth.storage.tables import read_parts, split_files

ORIGIN = "origin.json"


def origins_of(jobs: Sequence[Job], decided: Mapping[str, Any], real: str) -> dict[str, str]:
    """Adapter -> digest of all that it is a function of.

    Parameters
    ----------
    decided : what decides all adapters of the run, JSON-able.
    real : folder or URI of the images' table.
    """
    sums: dict[str, str] = {}
    for part in read_parts(real, ["id", "image"], split_files(real, "train")):
        images = pc.struct_field(part["image"], "bytes")
        for name, image in zip(part["id"].to_pylist(), images, strict=True):
            sums[name] = hashlib.sha256(image.as_buffer()).hexdigest()
    return {job.name: digest_of(_told(job, decided, sums)) for job in jobs}


def _told(job: Job, decided: Mapping[str, Any], sums: Mapping[str, str]) -> dict[str, Any]:
    knobs = {name: value for name, value in decided["knobs"].items() if name != "overrides"}
    return {
        "decided": {**decided, "knobs": knobs},  # overrides are in the job's own steps
        "name": job.name,
        "images": [sums[each] for each in job.ids],
        "captions": list(job.captions) or list(job.prompts.values()),
        "steps": [job.steps, job.batch, job.learning_rate],
    }


def take_over(jobs: Sequence[Job], origins: Mapping[str, str], before: str, work: str) -> int:
    """Copy finished adapters of the same origin from a folder or URI to another; how many."""
    there = sizes_below(before)
    taken = 0
    for job in jobs:
        if read_adapter(f"{work}/{job.name}") is not None or not _same(before, job, origins):
            continue
        record = read_adapter(f"{before}/{job.name}")
        assert record is not None, "_same"
        storage, root = open_storage(before)
        for file in there:
            if file.startswith(f"{job.name}/") and not file.endswith(f"/{RECORD}"):
                write_atomic(f"{work}/{file}", storage.cat_file(f"{root}/{file}"))
        write_adapter(replace(record, group=job.group), f"{work}/{job.name}")
        taken += 1
    return taken


def _same(before: str, job: Job, origins: Mapping[str, str]) -> bool:
    try:
        origin = read_json(f"{before}/{job.name}/{ORIGIN}")
    except DataError:
        return False
    return origin == origins[job.name] and read_adapter(f"{before}/{job.name}") is not None


def note_origins(origins: Mapping[str, str], work: str) -> None:
    """Write beside each adapter what it is a function of."""
    for name, origin in origins.items():
        write_atomic(f"{work}/{name}/{ORIGIN}", json.dumps(origin).encode())
