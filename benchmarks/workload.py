"""What the fine-tuning benchmarks train on: adapters of equal size, made from the embedded data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import Job, plan_jobs
from raysynth.finetune.packs import Pack
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.storage.tables import IMAGE, REAL, with_groups, write_table

IMAGES = 32
"""Training images of each adapter."""
FROM_NOISE = (
    "synthesis.gaussian_above=1",
    "synthesis.guidance=[classifier_free]",
    "synthesis.steps=6",
)
"""Sampling as a pipeline of diffusers does it: what is compared with one, and earlier defaults."""


@dataclass(frozen=True)
class Workload:
    """A real table and the adapters that are to be trained on it."""

    config: Config
    groups: Groups
    real: str
    jobs: list[Job]

    def pack(self, work: Path, count: int | None = None) -> Pack:
        """A pack of the first jobs, as a worker is given it."""
        return pack_of(self.config, self.jobs[:count], self.groups, self.real, str(work))


def make_workload(storage: Path, adapters: int, **sections: dict[str, Any]) -> Workload:
    """`adapters` jobs, a multiple of 4, of IMAGES images each, written below `storage` once.

    Clusters are cut anyhow: what is measured here does not depend on what images show.

    Parameters
    ----------
    sections : of the configuration.
    """
    dataset = {"severity": 0.5, "train_images": adapters * IMAGES}
    dataset |= {"validation_images": 8, "test_images": 8}
    config = Config.model_validate({"dataset": dataset, **sections})
    real = storage / f"real-{adapters}"
    data, groups, listing = list_dataset(config.dataset, config.seed)
    listing = listing.filter(pc.equal(listing["split"], "train"))
    if not real.exists():
        write_real(real, data, groups, listing)
    group = listing["group"].to_numpy()
    cluster = np.zeros(len(group), dtype=np.int64)
    for g in range(groups.count):
        members = np.flatnonzero(group == g)
        cluster[members] = np.arange(len(members)) // IMAGES
    clusters = pa.table({"id": listing["id"], "group": group, "cluster": cluster})
    return Workload(config, groups, str(real), jobs_of(config, clusters, groups))


def write_real(folder: Path, data: Any, groups: Groups, listing: pa.Table) -> None:
    """The training images of a data set's listing as the real table has them."""
    images = [{"bytes": png, "path": None} for png in data.images(listing)]
    table = listing.append_column("image", pa.array(images, IMAGE)).select(REAL.names)
    write_table(table.cast(with_groups(REAL, groups)), f"{folder}/train-00000.parquet")


def jobs_of(config: Config, clusters: pa.Table, groups: Groups) -> list[Job]:
    """The adapters of a configuration."""
    return plan_jobs(recipe_of(config), config.finetune, config.prompts, clusters, groups)


def pack_of(config: Config, jobs: list[Job], groups: Groups, real: str, work: str) -> Pack:
    """Jobs of a configuration as a worker is given them."""
    training = recipe_of(config).training
    assert training is not None, "a generator that trains nothing has no jobs"
    return Pack(
        jobs,
        training,
        config.finetune,
        config.base,
        config.resources,
        groups,
        config.seed,
        real,
        work,
    )


def clock(device: torch.device) -> float:
    """CPU seconds of this process, or seconds once an accelerator has done what it was told."""
    if device.type == "cpu":
        return time.process_time()
    getattr(torch, device.type).synchronize()
    return time.perf_counter()
