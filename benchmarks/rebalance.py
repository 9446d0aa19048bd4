"""What breeding makes of a model that nobody told of the attribute: shares, cost, diversity, refit.

One model of pullovers (outfits at severity 0.99; `shared`, per class, prompts without {attribute},
nothing oversampled), everything else at its defaults. `tv`: total variation of the attribute's
shares from even ones, by the judge, whom breeding never asks; what shows neither ground is a third
share. `plain`: of what the model draws from pure noise; `candidates`: of plain images of both
groups, as many each, each begun at its group's Gaussian; `bred`: the same of bred ones; `refit`: as
`plain`, of a model that was trained on the bred ones alone. `images`: drawn for each accepted image
of the minority, the accepted ones twice; `rejection`: the same of its plain candidates, by the same
judge. `distance`: mean cosine distance, by CLIP, of accepted minority images from each other.
`right`: of these, those that the judge takes for it too; `plain right`: of all its candidates.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from judge import load_judge
from workload import jobs_of, pack_of, write_real

from pretraining.words import GROUNDS
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import record_of
from raysynth.finetune.training import train_pack
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.progress import Progress
from raysynth.storage.tables import IMAGE, REAL, encode_png, with_groups, write_table
from raysynth.synthesis.breeding import Breed, Breeder, begun, breed, breeds_of
from raysynth.synthesis.levels import find_way
from raysynth.synthesis.rebalance import Start, shares_of
from raysynth.synthesis.specs import Asked, group_voices
from raysynth.synthesis.task import Drawing, Task

GROUPS, AT_ONCE = (0, 1), 64
QUOTA, PLAIN, REJECTED = 200, 400, 800
QUICK_QUOTA, QUICK_PLAIN, QUICK_REJECTED, QUICK_STEPS = 24, 96, 192, 60


class Bed:
    """A class's model, and what breeding, drawing and looking at its images need."""

    def __init__(self, folder: Path, seed: int, quick: bool) -> None:
        self.config = config = configured(seed, quick)
        data, self.groups, listing = list_dataset(config.dataset, seed)
        self.train = listing.filter(pc.equal(listing["split"], "train"))
        self.counts = np.bincount(self.train["group"].to_numpy(), minlength=self.groups.count)
        self.shares = shares_of(self.counts, self.groups)
        self.minority = int(np.argmin(self.counts[list(GROUPS)]))
        self.work, self.judge = folder / f"rebalance-{seed}", load_judge()
        write_real(self.work / "real", data, self.groups, self.train)
        self.task = self.fitted("first", self.train.select(["id", "group"]), "real")
        self.breeder = Breeder(self.task, self.shares)

    def fitted(self, name: str, rows: pa.Table, real: str) -> Task:
        """What draws with a model of the class that is trained on `rows`."""
        config, groups = self.config, self.groups
        clusters = rows.append_column("cluster", pa.array(np.zeros(len(rows), np.int64)))
        (job,) = (job for job in jobs_of(config, clusters, groups) if GROUPS[0] in job.groups)
        folder = str(self.work / name)
        failed = train_pack(pack_of(config, [job], groups, f"{self.work}/{real}", folder))
        assert not failed, failed
        recipe = settled(recipe_of(config), self.counts)
        assert recipe.training is not None
        self.adapter = record_of(job, recipe.training, groups, 0, 0.0)
        sections = (config.base, config.synthesis, recipe, config.resources)
        where = (f"{self.work}/real", groups, f"{self.work}/way", config.seed)
        known: dict[str, Any] = {"recipe": recipe, "way": find_way(*sections, *where)}
        return Task.of(config, groups, folder, (job.name,), "", **known)

    @property
    def breeds(self) -> list[Breed]:
        """Of both groups."""
        config, recipe = self.config, self.task.drawing.recipe
        given = (recipe, config.prompts, [self.adapter], self.groups, self.counts)
        voices = [
            (v, config.synthesis.images_per_group) for g in GROUPS for v in group_voices(*given, g)
        ]
        return breeds_of(config.synthesis.rebalance, voices, self.groups, self.shares)

    def bred(self) -> tuple[pa.Table, dict[str, Any]]:
        """Specs of both groups' images, and what it took for the minority."""
        asked = Asked.of(self.config, self.task.drawing.recipe)
        given = (self.task, asked, self.breeds, str(self.work), Progress())
        specs, facts = breed(self.looked, *given)
        return specs, facts[self.groups.names[self.minority]]

    def looked(self, specs: pa.Table) -> pa.Table:
        """What the judge of breeding says of specs, a batch at a time."""
        return pa.concat_tables([self.breeder.look(some) for some in _batches(specs)])

    def plain(self, *counts: int) -> pa.Table:
        """Specs of as many plain images of each group."""
        asked = Asked.of(self.config, self.task.drawing.recipe)
        return begun(
            self.task, asked, self.breeds, [[Start((), n) for n in range(c)] for c in counts]
        )

    def alone(self, task: Task) -> Breeder:
        """What draws from pure noise, as nothing but the model says."""
        change = {"gaussian_above": 1.0}
        synthesis = self.config.synthesis.model_copy(update=change)
        config = self.config.model_copy(update={"synthesis": synthesis})
        drawing = Drawing.of(config, settled(recipe_of(config), self.counts))
        return Breeder(replace(task, drawing=drawing), self.shares)

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """[N] grounds that the judge sees: 0 and 1 the groups', 2 another."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        known = [GROUNDS.index(name) for name in self.groups.attribute_names]
        ground = self.judge.verdict(images)[1].numpy()
        return np.select([ground == number for number in known], [0, 1], 2)

    def refitted(self, specs: pa.Table, pixels: np.ndarray) -> Task:
        """What draws with a model of the class that is trained on images of specs alone."""
        images = [{"bytes": encode_png(each), "path": None} for each in pixels]
        table = specs.select(["id", "label", "attribute", "group"])
        table = table.append_column("image", pa.array(images, IMAGE))
        table = table.append_column("split", pa.array(["train"] * len(images)))
        real = table.select(REAL.names).cast(with_groups(REAL, self.groups))
        write_table(real, f"{self.work}/balanced/train-00000.parquet")
        others = self.train.filter(pc.greater(self.train["group"], max(GROUPS)))
        rows = [some.select(["id", "group"]) for some in (table, others)]  # every class has some
        return self.fitted(
            "refit", pa.concat_tables(rows, promote_options="permissive"), "balanced"
        )


def configured(seed: int, quick: bool) -> Config:
    """The configuration of a run."""
    tuned: dict[str, Any] = {"per": "class", "oversample": 0.0}
    if quick:
        tuned |= {"steps": QUICK_STEPS, "batch_size": 16}
    return Config.model_validate(
        {
            "seed": seed,
            "generator": "shared",
            "dataset": {"severity": 0.99},
            "prompts": {"template": "a photo of a {token} {label}"},
            "finetune": tuned,
            "synthesis": {
                "rebalance": {"judge": "clip"},
                "images_per_group": QUICK_QUOTA if quick else QUOTA,
            },
        }
    )


def variation(seen: np.ndarray) -> float:
    """Total variation of the shares of 0, 1 and 2 from (1/2, 1/2, 0)."""
    share = np.bincount(seen, minlength=3) / len(seen)
    return float(np.abs(share - [0.5, 0.5, 0.0]).sum() / 2)


def distance(vectors: np.ndarray) -> float:
    """Mean cosine distance between the rows of normalised vectors."""
    count, cosines = max(2, len(vectors)), vectors @ vectors.T
    return float(1 - (cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def _batches(specs: pa.Table) -> list[pa.Table]:
    return [specs.slice(start, AT_ONCE) for start in range(0, specs.num_rows, AT_ONCE)]


def drawn(breeder: Breeder, specs: pa.Table) -> np.ndarray:
    """[N, 32, 32, 3] images of specs."""
    return np.concatenate([breeder.drawn(some) for some in _batches(specs)])


def rebalanced(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    count, rejected = (QUICK_PLAIN, QUICK_REJECTED) if quick else (PLAIN, REJECTED)
    began = time.process_time()
    bed = Bed(folder, seed, quick)
    clip, own = bed.breeder.task.scoring.clip, bed.groups.attribute(bed.minority)
    specs, took = bed.bred()
    images, mine = drawn(bed.breeder, specs), specs["group"].to_numpy() == bed.minority
    found = {"tv: bred": variation(bed.seen(images))}
    found["right"] = float((bed.seen(images[mine]) == own).mean())
    plain = bed.plain(*(rejected * (g == bed.minority) for g in GROUPS))
    pixels, accepted = drawn(bed.breeder, plain), bed.looked(plain)["accepted"].to_numpy()
    found["plain right"] = float((bed.seen(pixels) == own).mean())
    both = bed.plain(*(count for _ in GROUPS))
    found["tv: candidates"] = variation(bed.seen(drawn(bed.breeder, both)))
    noise = both.slice(0, count)
    found["tv: plain"] = variation(bed.seen(drawn(bed.alone(bed.task), noise)))
    found |= {
        "images: bred": took["images_per_accepted"],
        "rejection accepts": accepted.mean(),
        "founders": float(took["founders"]),
        "distance: bred": distance(clip.images(images[mine])),
        "distance: rejection": distance(clip.images(pixels[accepted])),
    }
    if not quick:  # which trains too little for the target to be rare
        found["images: rejection"] = 1 / max(accepted.mean(), 1 / rejected)
        again = bed.alone(bed.refitted(specs, images))
        found["tv: refit"] = variation(bed.seen(drawn(again, noise)))
    found["CPU s"] = time.process_time() - began
    return {name: round(float(value), 4) for name, value in found.items()}
