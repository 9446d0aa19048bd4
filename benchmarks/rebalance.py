"""What breeding makes of a model that nobody told of the attribute: shares, cost, diversity, refit.

One model of pullovers (outfits at severity 0.99; `shared`, per class, prompts without {attribute},
nothing oversampled, drawn from pure noise), everything else at its defaults. `tv`: total variation
of the attribute's shares from even ones, by the judge, which breeding never asks: `plain` images of
the class, the `bred` ones of both its groups, and plain ones of a model fitted to these (`refit`).
`images`: drawn per accepted image of the minority, the accepted ones drawn twice; `rejection`: the
same of plain images that CLIP accepts. `distance`: mean cosine distance by CLIP between accepted
minority images, of as many of each. `right`: of the bred minority images, by the judge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from judge import load_judge
from separation import _quiet
from workload import jobs_of, pack_of, write_real

from pretraining.words import GROUNDS

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import record_of
from raysynth.finetune.training import train_pack
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.progress import Progress
from raysynth.storage.tables import IMAGE, REAL, encode_png, with_groups, write_table
from raysynth.synthesis.breeding import Breeder, breed, breeds_of
from raysynth.synthesis.rebalance import shares_of
from raysynth.synthesis.specs import Asked, group_voices
from raysynth.synthesis.task import Task

GROUPS, QUOTA, PLAIN, STEPS, BATCH = (0, 1), 96, 400, 120, 16
QUICK_QUOTA, QUICK_PLAIN, QUICK_STEPS = 24, 100, 60
TEMPLATE = "a photo of a {token} {label}"


class Bed:
    """A class's model, and what breeding, drawing and looking at its images need."""

    def __init__(self, folder: Path, seed: int, quick: bool) -> None:
        steps, quota = (QUICK_STEPS, QUICK_QUOTA) if quick else (STEPS, QUOTA)
        self.config = config = configured(seed, steps, quota)
        self.data, self.groups, listing = list_dataset(config.dataset, seed)
        self.train = listing.filter(pc.equal(listing["split"], "train"))
        self.counts = np.bincount(self.train["group"].to_numpy(), minlength=self.groups.count)
        self.shares = shares_of(self.counts, self.groups)
        self.work, self.judge = folder / f"rebalance-{seed}", load_judge()
        self.minority = int(np.argmin(self.counts[list(GROUPS)]))
        write_real(self.work / "real", self.data, self.groups, self.train)
        clusters = self.train.select(["id", "group"])
        self.task, self.asked, self.breeds = self._fitted("first", clusters, self.work / "real")
        self.breeder = Breeder(self.task, self.shares)

    def _fitted(self, name: str, rows: pa.Table, real: Path) -> tuple[Task, Asked, list[Any]]:
        """A model of the class trained on `rows`, and who breeds with it."""
        config, groups = self.config, self.groups
        clusters = rows.append_column("cluster", pa.array(np.zeros(len(rows), np.int64)))
        jobs = [job for job in jobs_of(config, clusters, groups) if GROUPS[0] in job.groups]
        folder = str(self.work / name)
        failed = train_pack(pack_of(config, jobs, groups, str(real), folder), _quiet)
        assert not failed, failed
        recipe = settled(recipe_of(config), self.counts)
        assert recipe.training is not None
        adapter = record_of(jobs[0], recipe.training, groups, 0, 0.0)
        task = Task.of(config, groups, folder, (adapter.name,), "", recipe=recipe)
        voices = [
            (voice, config.synthesis.images_per_group)
            for g in GROUPS
            for voice in group_voices(recipe, config.prompts, [adapter], groups, self.counts, g)
        ]
        given = (config.synthesis.rebalance, voices, groups, self.shares)
        return task, Asked.of(config, recipe), breeds_of(*given)
