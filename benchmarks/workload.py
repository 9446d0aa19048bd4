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
from raysynth.finetune.training import Pack
from raysynth.groups.groups import Groups
from raysynth.storage.tables import IMAGE, REAL, with_groups, write_table

IMAGES = 32
"""Training images of each adapter."""


@dataclass(frozen=True)
class Workload:
    """A real table and the adapters that are to be trained on it."""

    config: Config
    groups: Groups
    real: str
    jobs: list[Job]

    def pack(self, work: Path, count: int | None = None) -> Pack:
        """A pack of the first jobs, as a worker is given it."""
        return Pack(self.jobs[:count], self.config, self.groups, self.real, str(work))


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
        images = [{"bytes": png, "path": None} for png in data.images(listing)]
        table = listing.append_column("image", pa.array(images, IMAGE)).select(REAL.names)
        write_table(table.cast(with_groups(REAL, groups)), f"{real}/train-00000.parquet")
    group = listing["group"].to_numpy()
    cluster = np.zeros(len(group), dtype=np.int64)
    for g in range(groups.count):
        members = np.flatnonzero(group == g)
        cluster[members] = np.arange(len(members)) // IMAGES
    clusters = pa.table({"id": listing["id"], "group": group, "cluster": cluster})
    return Workload(config, groups, str(real), plan_jobs(config, clusters, groups))


def clock(device: torch.device) -> float:
    """CPU seconds of this process, or seconds once an accelerator has done what it was told."""
    if device.type == "cpu":
        return time.process_time()
    getattr(torch, device.type).synchronize()
    return time.perf_counter()
