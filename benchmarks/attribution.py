"""Whom GUDA says that images owe most, beside models that were trained without each group.

One LoRA of all groups of outfits draws 200 images (50 of each group, guidance 1). `gold`: models
trained anew without one group, with as many steps as the full one, for each group and from two
seeds: an image owes that group most without which it is least likely. At each severity, shares of
the images: `ceiling`: gold of both seeds names the same group; `guda`, `nearest` (group of the
nearest training image, as it is), `asked` (of the prompt): the same group as gold, mean over seeds;
`hard ...`: of images alone whose gold is not the group that was asked for, and `hard`: their share.
`own`: images that owe most to what was asked, by GUDA and by gold. `CPU s`: of the trainings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from workload import jobs_of, pack_of, write_real

from raysynth.audit.attribution import top_of
from raysynth.audit.differences import Compared, Judge
from raysynth.audit.methods.guda import GudaKnobs
from raysynth.audit.unlearning import redirected, unlearners
from raysynth.clustering.embed import vectors_column
from raysynth.clustering.neighbours import Neighbours
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import Job, record_of
from raysynth.finetune.packs import Pack
from raysynth.finetune.training import train_pack
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.models.clip import load_clip
from raysynth.storage.tables import decode_bytes
from raysynth.strips import spaced
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.specs import group_voices, image_seed
from raysynth.synthesis.task import Drawing

SEVERITIES, STEPS, BATCH, EACH, GOLD, LEVELS = (0.99, 0.9), 100, 16, 50, 2, 10
QUICK_STEPS, QUICK_EACH, QUICK_IMAGES = 15, 6, 800
MEANS = 400
"""Validation images that the search for the nearest ones is given: groups' means alone."""
FULL, GUDA = "full", "guda"


class Bed:
    """The full model, its images, and all models without a group, at one severity."""

    def __init__(self, folder: Path, seed: int, severity: float, quick: bool) -> None:
        steps = QUICK_STEPS if quick else STEPS
        self.config = configured(seed, severity, steps, QUICK_IMAGES if quick else None)
        self.knobs = GudaKnobs(steps=round(0.6 * steps), timesteps=LEVELS)
        self.each, self.seconds = QUICK_EACH if quick else EACH, {}
        self.work = folder / f"attribution-{severity}-{seed}-{'quick' if quick else 'whole'}"
        self.data, self.groups, self.listing = list_dataset(self.config.dataset, seed)
        self.train = self.listing.filter(pc.equal(self.listing["split"], "train"))
        if not (self.work / "real").exists():
            write_real(self.work / "real", self.data, self.groups, self.train)
        group = self.train["group"].to_numpy()
        self.counts = np.bincount(group, minlength=self.groups.count)
        clusters = pa.table(
            {"id": self.train["id"], "group": group, "cluster": np.zeros_like(group)}
        )
        (self.job,) = jobs_of(self.config, clusters, self.groups)
        self.pack = self._pack([self.job], FULL)

    def _pack(self, jobs: list[Job], name: str) -> Pack:
        return pack_of(
            self.config, jobs, self.groups, str(self.work / "real"), str(self.work / name)
        )

    def made(self, name: str, pack: Callable[[], Pack]) -> None:
        """Train a pack, and note its CPU seconds."""
        began = time.process_time()
        failed = train_pack(pack())
        assert not failed, failed
        self.seconds[name] = time.process_time() - began

    def unlearned(self) -> Pack:
        """The models that forget a group."""
        pack = self._pack(unlearners([self.job], self.knobs.steps, self.knobs.learning_rate), GUDA)
        settings = pack.settings.model_copy(update={"prompt_dropout": 0.0})
        pack = replace(pack, settings=settings, parents=self.pack.work)
        many = self.groups.count
        return redirected(pack, lambda: np.ones((many, many)), self.knobs)  # one anchor each

    def retrained(self, gold: int) -> Pack:
        """The models that never saw a group; `gold`: number of the seed."""
        jobs = [without(self.job, g) for g in range(self.groups.count)]
        return replace(self._pack(jobs, f"gold-{gold}"), seed=self.config.seed + 100 * (gold + 1))

    def drawn(self) -> tuple[pa.Table, np.ndarray]:
        """The images: id, group, adapter and prompt, and [N, H, W, 3] pixels."""
        recipe = settled(recipe_of(self.config), self.counts)
        assert recipe.training is not None
        adapters = [record_of(self.job, recipe.training, self.groups, 0, 0.0)]
        generate = ImageGenerator(Drawing.of(self.config), self.pack.work, [self.job.name])
        rows, pixels = [], []
        for g in range(self.groups.count):
            given = (recipe, self.config.prompts, adapters, self.groups, self.counts)
            (voice,) = group_voices(*given, g)
            seeds = [image_seed(self.config.seed, g, 0, n) for n in range(self.each)]
            same = (voice.prompt, voice.negative_prompt, voice.adapter)
            pixels.append(generate(*([said] * self.each for said in same), seeds))
            rows += [
                {"id": f"g{g}-{n}", "group": g, "adapter": voice.adapter, "prompt": voice.prompt}
                for n in range(self.each)
            ]
        return pa.Table.from_pylist(rows), np.concatenate(pixels)

    def nearest(self, pixels: np.ndarray) -> np.ndarray:
        """[N] groups of the nearest training images."""
        clip, tables = load_clip(self.config.base), {}
        for split in ("train", "validation"):
            table = self.listing.filter(pc.equal(self.listing["split"], split))
            if split == "validation":
                table = table.take(spaced(table.num_rows, MEANS))
            seen = vectors_column(clip.images(decode_bytes(pa.array(self.data.images(table)))))
            vectors = dict.fromkeys(("embedding", "mirrored"), seen)
            tables[split] = pa.table({"id": table["id"], "group": table["group"], **vectors})
        search = Neighbours(tables["train"], tables["validation"], self.groups, clip.device)
        ids, _ = search(clip.images(pixels))
        place = pc.index_in(pa.array(ids, pa.string()), self.train["id"].combine_chunks())
        return self.train["group"].take(place).to_numpy()

    def tops(self, images: pa.Table, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Name of the models without a group -> [N] the group that each image owes most."""
        many, kinds = self.groups.count, [GUDA, *(f"gold-{n}" for n in range(GOLD))]
        # One pass of the full model for all kinds: as if there were so many groups.
        models = {k * many + g: f"{kind}/{name_of(kind, g)}" for k, kind in enumerate(kinds)
                  for g in range(many)}  # fmt: skip
        asked = Compared(
            base=self.config.base,
            training=self.pack.training,
            shape=Drawing.of(self.config).lora,
            full=self.pack.work,
            without=str(self.work),
            models={self.job.name: models},
            groups=len(models),
            synthetic="",
            timesteps=self.knobs.timesteps,
            rows=128,
        )
        scores = Judge(asked).scores(images, pixels)
        return {kind: top_of(scores[:, k * many :][:, :many]) for k, kind in enumerate(kinds)}


def configured(seed: int, severity: float, steps: int, images: int | None) -> Config:
    """A LoRA of all groups; images from pure noise, without guidance."""
    tuned = {"engine": "lora", "per": "all", "steps": steps, "batch_size": BATCH}
    drawing: dict[str, Any] = {"gaussian_above": 1.0, "steps": 12, "guidance_scale": 1.0}
    drawing["guidance"] = ["classifier_free"]
    dataset = {"severity": severity, **({"train_images": images} if images else {})}
    given = {"seed": seed, "generator": "shared", "dataset": dataset}
    return Config.model_validate({**given, "finetune": tuned, "synthesis": drawing})


def without(job: Job, group: int) -> Job:
    """The same training on all images but a group's."""
    rows = [row for row, g in enumerate(job.groups) if g != group]
    return replace(
        job,
        name=name_of("gold", group),
        ids=tuple(job.ids[row] for row in rows),
        groups=tuple(job.groups[row] for row in rows),
        prompts={g: said for g, said in job.prompts.items() if g != group},
        plain_prompts={g: said for g, said in job.plain_prompts.items() if g != group},
        conflicting=tuple(g for g in job.conflicting if g != group),
    )


def name_of(kind: str, group: int) -> str:
    """What a model without a group is called."""
    return f"without-{group}" if kind == GUDA else f"never-{group}"


def attributed(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for severity in SEVERITIES[-1:] if quick else SEVERITIES:
        bed = Bed(folder, seed, severity, quick)
        bed.made(FULL, lambda bed=bed: bed.pack)
        bed.made(GUDA, bed.unlearned)
        for gold in range(GOLD):
            bed.made(f"gold-{gold}", lambda bed=bed, gold=gold: bed.retrained(gold))
        images, pixels = bed.drawn()
        tops = bed.tops(images, pixels)
        tops |= {"nearest": bed.nearest(pixels), "asked": images["group"].to_numpy()}
        numbers = compared(tops)
        numbers |= {f"CPU s: {name}": spent for name, spent in bed.seconds.items()}
        found |= {f"{severity} {name}": value for name, value in numbers.items()}
    return {name: round(float(value), 4) for name, value in found.items()}


def compared(tops: dict[str, np.ndarray]) -> dict[str, float]:
    """Agreements with gold, of all images and of those that do not owe most to what was asked."""
    gold, asked = [tops[f"gold-{n}"] for n in range(GOLD)], tops["asked"]
    hard = [top != asked for top in gold]
    found = {"ceiling": np.mean(gold[0] == gold[1]), "hard": np.mean(hard)}
    found["hard ceiling"] = _mean([(gold[0] == gold[1])[rows] for rows in hard])
    for name in (GUDA, "nearest", "asked"):
        agrees = [tops[name] == top for top in gold]
        found[name] = np.mean(agrees)
        found[f"hard {name}"] = _mean([one[rows] for one, rows in zip(agrees, hard, strict=True)])
    found["own: guda"] = np.mean(tops[GUDA] == asked)
    found["own: gold"] = 1 - found["hard"]
    return found


def _mean(parts: list[np.ndarray]) -> float:
    """The mean over all rows of all parts; 0 without any."""
    rows = np.concatenate(parts)
    return float(rows.mean()) if len(rows) else 0.0
