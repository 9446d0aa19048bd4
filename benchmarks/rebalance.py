"""What breeding makes of a model that nobody told of the attribute: shares, cost, diversity, refit.

One model of pullovers (outfits at severity 0.99; `shared`, per class, prompts without {attribute},
nothing oversampled, drawn from pure noise), everything else at its defaults. `tv`: total variation
of the attribute's shares from even ones, by the judge, whom breeding never asks; what shows neither
ground is a third share. `plain`: of the class's plain images; `bred`: of both groups' bred ones, as
many of each; `refit`: plain images of a model that was trained on these alone. `images`: drawn for
each accepted image of the minority, the accepted ones twice; `rejection`: the same of plain images
of which CLIP accepts some. `distance`: mean cosine distance, by CLIP, of accepted minority images
from each other. `right`: of these, those that the judge takes for it too.
"""

from __future__ import annotations

import time
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
from raysynth.progress import Progress
from raysynth.storage.tables import IMAGE, REAL, encode_png, with_groups, write_table
from raysynth.synthesis.breeding import Breeder, begun, breed, breeds_of
from raysynth.synthesis.rebalance import Start, shares_of
from raysynth.synthesis.specs import Asked, group_voices
from raysynth.synthesis.task import Task

GROUPS, AT_ONCE = (0, 1), 64
SEVERITY, QUOTA, PLAIN, REFIT = 0.99, 96, 1600, 400
QUICK_SEVERITY, QUICK_QUOTA, QUICK_PLAIN, QUICK_STEPS = 0.9, 16, 160, 60


class Bed:
    """A class's model, and what breeding, drawing and looking at its images need."""

    def __init__(self, folder: Path, seed: int, quick: bool) -> None:
        self.config = config = configured(seed, quick)
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

    def bred(self) -> tuple[pa.Table, dict[str, Any]]:
        """Specs of both groups' images, and what it took."""
        given = (self.task, self.asked, self.breeds, str(self.work))
        return breed(self.looked, *given, Progress())

    def looked(self, specs: pa.Table) -> pa.Table:
        """What the judge of breeding says of specs, a batch at a time."""
        return pa.concat_tables([self.breeder.look(some) for some in _batches(specs)])

    def plain(self, count: int) -> pa.Table:
        """Specs of plain images of the class, the minority's for no reason."""
        starts = [
            [Start((), n) for n in range(count)] if g == self.minority else [] for g in GROUPS
        ]
        return begun(self.task, self.asked, self.breeds, starts)

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """[N] grounds that the judge sees: 0 and 1 the groups', 2 another."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        known = [GROUNDS.index(name) for name in self.groups.attribute_names]
        ground = self.judge.verdict(images)[1].numpy()
        return np.select([ground == number for number in known], [0, 1], 2)

    def refit(self, specs: pa.Table, pixels: np.ndarray) -> Breeder:
        """A breeder with a model of the class trained on images of specs alone."""
        images = [{"bytes": encode_png(each), "path": None} for each in pixels]
        split = pa.array(["train"] * len(images))
        table = specs.select(["id", "label", "attribute", "group"])
        table = table.append_column("image", pa.array(images, IMAGE)).append_column("split", split)
        real = self.work / "balanced"
        write_table(
            table.select(REAL.names).cast(with_groups(REAL, self.groups)),
            f"{real}/train-00000.parquet",
        )
        others = pc.invert(pc.is_in(self.train["group"], pa.array(GROUPS, pa.int32())))
        rows = [table.select(["id", "group"]), self.train.filter(others).select(["id", "group"])]
        merged = pa.concat_tables(rows, promote_options="permissive")
        task, _, _ = self._fitted("refit", merged, real)
        return Breeder(task, self.shares)

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


def configured(seed: int, quick: bool) -> Config:
    """The configuration of a run."""
    synthesis = {"rebalance": {"judge": "clip"}, "gaussian_above": 1.0}
    tuned: dict[str, Any] = {"per": "class", "oversample": 0.0}
    if quick:
        tuned |= {"steps": QUICK_STEPS, "batch_size": 16}
    return Config.model_validate(
        {
            "seed": seed,
            "generator": "shared",
            "dataset": {"severity": QUICK_SEVERITY if quick else SEVERITY},
            "prompts": {"template": "a photo of a {token} {label}"},
            "finetune": tuned,
            "synthesis": synthesis | {"images_per_group": QUICK_QUOTA if quick else QUOTA},
        }
    )


def variation(seen: np.ndarray) -> float:
    """Total variation of the shares of 0, 1 and 2 from (1/2, 1/2, 0)."""
    share = np.bincount(seen, minlength=3) / len(seen)
    return float(np.abs(share - [0.5, 0.5, 0.0]).sum() / 2)


def distance(vectors: np.ndarray) -> float:
    """Mean cosine distance between the rows of normalised vectors."""
    count = len(vectors)
    cosines = vectors @ vectors.T
    return float(1 - (cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def _batches(specs: pa.Table) -> list[pa.Table]:
    return [specs.slice(start, AT_ONCE) for start in range(0, specs.num_rows, AT_ONCE)]


def drawn(breeder: Breeder, specs: pa.Table) -> np.ndarray:
    """[N, 32, 32, 3] images of specs."""
    return np.concatenate([breeder.drawn(some) for some in _batches(specs)])


def rebalanced(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    began, count = time.process_time(), QUICK_PLAIN if quick else PLAIN
    bed = Bed(folder, seed, quick)
    plain, clip = bed.plain(count), bed.task.scoring.clip
    pixels = drawn(bed.breeder, plain)
    found = {"tv: plain": variation(bed.seen(pixels))}
    accepted = bed.looked(plain)["accepted"].to_numpy()
    chosen = pixels[accepted]
    specs, facts = bed.bred()
    images, mine = drawn(bed.breeder, specs), specs["group"].to_numpy() == bed.minority
    told, own = facts[bed.groups.names[bed.minority]], images[mine]
    found |= {
        "tv: bred": variation(bed.seen(images)),
        "right": float((bed.seen(own) == bed.groups.attribute(bed.minority)).mean()),
        "founders": float(told["founders"]),
        "images: bred": told["images_per_accepted"],
        "images: rejection": count / max(1, accepted.sum()),
        "distance: bred": distance(clip.images(own)),
        "distance: rejection": distance(clip.images(chosen)) if len(chosen) > 1 else 0.0,
    }
    if not quick:
        again = drawn(bed.refit(specs, images), plain.slice(0, REFIT))
        found["tv: refit"] = variation(bed.seen(again))
    found["CPU s"] = time.process_time() - began
    return {name: round(value, 4) for name, value in found.items()}
