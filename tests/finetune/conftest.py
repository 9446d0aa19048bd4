"""A random base, and real and cluster tables as the rooms before leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysynth.config.config import Config
from raysynth.finetune import training
from raysynth.finetune.jobs import Job, plan_jobs
from raysynth.finetune.loop import Loop
from raysynth.finetune.packs import Pack
from raysynth.finetune.turns import Turn
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.storage.tables import REAL, encode_png, read_table, with_groups, write_table
from tests.synthesis.random_models import write_base

GROUPS = Groups(
    ("pullover", "coat"), ("grass", "gravel"), ("pullover", "coat"), ("grass", "gravel")
)
COUNTS = {(0, 0): 9, (0, 1): 7, (1, 0): 3, (2, 0): 8, (3, 0): 10}
"""Images of each (group, cluster)."""


@dataclass(frozen=True)
class Room:
    """What the fine-tuning stage is given."""

    base: Path
    real: str
    clusters: str

    def config(self, generator: str = "clustered_dreambooth", **finetune: Any) -> Config:
        """Three short steps of two images in float32, unless said otherwise."""
        settings = {"steps": 3, "batch_size": 2, "rank": 2, "alpha": 3.0, "precision": "float32"}
        settings |= {"checkpoint_steps": 2, "min_images": 4, **finetune}
        base = {"name": str(self.base), "dtype": "float32", "device": "cpu"}
        base["attention"] = "plain"
        values = {"generator": generator, "base": base, "finetune": settings}
        return Config.model_validate(values)

    def jobs(self, config: Config) -> list[Job]:
        table = read_table(self.clusters)
        return jobs_of(config, table, GROUPS)

    def pack(self, config: Config, work: Path, names: list[str] | None = None) -> Pack:
        jobs = [job for job in self.jobs(config) if names is None or job.name in names]
        return Pack(
            jobs=jobs,
            training=recipe_of(config).training,
            settings=config.finetune,
            base=config.base,
            resources=config.resources,
            groups=GROUPS,
            seed=config.seed,
            real=self.real,
            work=str(work),
        )


def jobs_of(config: Config, clusters: pa.Table, groups: Groups) -> list[Job]:
    """The adapters of a configuration."""
    return plan_jobs(recipe_of(config), config.finetune, config.prompts, clusters, groups)


def laid(loop: Loop) -> Turn:
    """The only turn of the next step, taken."""
    _, ahead = training.turns(loop)
    (turn,) = next(ahead)
    training.take(loop, turn)
    return turn


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finetune")
    rng = np.random.default_rng(0)
    rows, clusters = [], []
    for (group, cluster), count in COUNTS.items():
        for number in range(count):
            name = f"g{group}k{cluster}n{number}"
            image = {"bytes": encode_png(rng.integers(0, 256, (32, 32, 3), np.uint8)), "path": None}
            rows.append((name, image, group // 2, group % 2, group, "train"))
            clusters.append((name, group, cluster))
    real = pa.table(dict(zip(REAL.names, zip(*rows, strict=True), strict=True)), schema=REAL)
    write_table(real.cast(with_groups(REAL, GROUPS)), f"{folder}/real/train-00000.parquet")
    table = pa.table(
        dict(zip(("id", "group", "cluster"), map(list, zip(*clusters, strict=True)), strict=True))
    )
    write_table(table, f"{folder}/clusters/clusters.parquet")
    base = write_base(folder / "base")
    return Room(base, f"{folder}/real", f"{folder}/clusters")


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Runs a training that is interrupted at its fourth step."""

    def run(train: Callable[[], Any]) -> None:
        real_step, taken = training.step, []

        def step(*args: Any) -> Any:
            taken.append(1)
            if len(taken) > 3:
                raise KeyboardInterrupt
            return real_step(*args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training, "step", step)
            train()

    return run
