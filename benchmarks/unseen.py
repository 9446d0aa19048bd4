"""A group that is never seen, drawn by a model of the others: with and without CoInD.

One model of three of outfits' four groups, evenly large, without any coat on grass; 100 steps of 16
images, everything else at its defaults. The grounds are called plain red and plain blue, so that
the base's own knowledge of their words does not answer. `off`; `words`: the term's one-sided
prompts without its weight; `coind`; `any`: cells without images too; `longer`: without the term, at
its CPU time. On held-out images (16 of each group, 6 noise levels): `gap`, the mean of || h(y,a) -
h(y) - h(a) + h() ||^2 in thousandths (all groups; `unseen gap`: of the fourth), and the own error
of the three groups (`error`) and of the fourth (`unseen error`). Of images that are asked for the
fourth group: `right`, share in which the judge sees its garment and its ground; `composed`, the
same of images that are guided by either word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from judge import accuracies, load_judge
from separation import held_out
from workload import jobs_of, pack_of, write_real

from raysynth.adapters.banks import open_bank
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import record_of
from raysynth.finetune.terms.coind import gap
from raysynth.finetune.training import train_pack
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import each_alone, spoken
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import encode
from raysynth.models.likelihood import Measure, noise_of, step_errors
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.levels import find_way
from raysynth.synthesis.specs import group_voices, image_seed
from raysynth.synthesis.task import Drawing

UNSEEN, STEPS, LONGER, QUICK_STEPS, BATCH = 2, 100, 400, 30, 16
EACH, LEVELS, AT_ONCE, IMAGES, QUICK_IMAGES = 16, 6, 128, 200, 100
OFF, WORDS, COIND, ANY, LONG = "off", "words", "coind", "any", "longer"
WORDS_OF_GROUNDS = {"grass": "plain red", "gravel": "plain blue"}
TERMS: dict[str, list[Any]] = {
    WORDS: [{"name": COIND, "weight": 0.0}],
    COIND: [COIND],
    ANY: [{"name": COIND, "cells": "any"}],
}


def unseen_group(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    torch.set_num_threads(1)
    bed, found = bed_of(folder, seed), {}
    for arm in (OFF, WORDS, COIND, *(() if quick else (ANY, LONG))):
        model = bed.trained(arm, quick)
        one = {**model.said(), "CPU s": model.seconds}
        for name, guidance in (("right", None), ("composed", "composed")):
            one[name] = model.right(guidance, QUICK_IMAGES if quick else IMAGES)
        found |= {f"{name}: {arm}": value for name, value in one.items()}
    for name in ("gap", "unseen gap", "error", "unseen error"):
        found |= {f"{name}: {COIND} / {OFF}": found[f"{name}: {COIND}"] / found[f"{name}: {OFF}"]}
    return {name: round(float(value), 4) for name, value in found.items()}


def configured(seed: int, arm: str, quick: bool, guidance: str | None = None) -> Config:
    """The configuration of an arm; `guidance`: the one term of it, None: as usual."""
    steps = {LONG: LONGER}.get(arm, QUICK_STEPS if quick else STEPS)
    tuned = {"per": "all", "steps": steps, "batch_size": BATCH, "terms": TERMS.get(arm, [])}
    dataset = {"severity": 0.5, "attribute_words": WORDS_OF_GROUNDS}
    given = {"seed": seed, "generator": "shared", "dataset": dataset, "finetune": tuned}
    return Config.model_validate(
        given | ({} if guidance is None else {"synthesis": {"guidance": [guidance]}})
    )


class Bed:
    """Images of three groups to train on, and held-out ones of four."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        config = configured(seed, OFF, False)
        data, self.groups, listing = list_dataset(config.dataset, seed)
        split = listing["split"]
        train = listing.filter(pc.equal(split, "train"))
        self.train = train.filter(pc.not_equal(train["group"], UNSEEN))
        test = listing.filter(pc.equal(split, "test"))
        self.real = folder / f"unseen-real-{seed}"
        if not self.real.exists():
            write_real(self.real, data, self.groups, self.train)
        rows = held_out(test["group"].to_numpy(), self.groups.count, EACH, seed)
        self.group = torch.from_numpy(test["group"].to_numpy()[rows]).long()
        self.pixels = decode_bytes(pa.array(data.images(test.take(rows))))
        self.ids = test["id"].take(rows).to_pylist()
        self.judge = load_judge()

    def trained(self, arm: str, quick: bool) -> Model:
        """The model of an arm."""
        config, work = (
            configured(self.seed, arm, quick),
            self.folder / f"unseen-{arm}-{self.seed}-{quick}",
        )
        group = self.train["group"].to_numpy()
        clusters = pa.table(
            {"id": self.train["id"], "group": group, "cluster": np.zeros_like(group)}
        )
        (job,) = jobs_of(config, clusters, self.groups)
        began = time.process_time()
        pack = pack_of(config, [job], self.groups, str(self.real), str(work))
        failed = train_pack(pack)
        assert not failed, failed
        spent, training = time.process_time() - began, recipe_of(config).training
        assert training is not None
        adapter = record_of(job, training, self.groups, 0, 0.0)
        counts = np.bincount(group, minlength=self.groups.count)
        return Model(self, arm, quick, str(work), adapter, counts, spent)


@dataclass(frozen=True)
class Model:
    """A trained model, and what is asked of it."""

    bed: Bed
    arm: str
    quick: bool
    work: str
    adapter: Any
    counts: np.ndarray
    seconds: float

    @torch.inference_mode()
    def said(self) -> dict[str, float]:
        """Gaps and own errors on held-out images."""
        bed, config = self.bed, configured(self.bed.seed, self.arm, self.quick)
        base = load_base(config.base)
        shape, training = Drawing.of(config).lora, recipe_of(config).training
        bank = open_bank(base, self.work, [self.adapter.name], training, shape)
        denoise = Denoiser(base, bank.use([self.adapter.name], 1))
        clean = encode(base, bed.pixels)
        shares = (torch.arange(LEVELS) + 0.5) / LEVELS
        noise = noise_of(bed.ids, range(LEVELS), clean[0].shape)
        told = base.condition(
            [p for g in range(bed.groups.count) for p in four(config, bed.groups, g)]
        )
        apart = []
        for k, share in enumerate(shares):
            timestep = base.prediction.at(share.expand(len(clean)))
            noisy, _ = base.prediction.noised(clean, noise[:, k], timestep)
            rows = [told.take(4 * bed.group + number) for number in range(4)]
            apart.append(gap(*(denoise(noisy, timestep, row).raw for row in rows)))
        how, fourth = Measure(at_once=AT_ONCE), bed.group == UNSEEN
        own = (4 * bed.group)[:, None]
        errors = step_errors(denoise, clean, told, shares, noise, own, how).mean((1, 2))
        gaps = torch.stack(apart).mean(0)
        return {
            "gap": 1e3 * float(gaps.mean()),
            "unseen gap": 1e3 * float(gaps[fourth].mean()),
            "error": float(errors[~fourth].mean()),
            "unseen error": float(errors[fourth].mean()),
        }

    def right(self, guidance: str | None, images: int) -> float:
        """Share of images asked for the unseen group that show its garment and its ground."""
        bed, config = self.bed, configured(self.bed.seed, self.arm, self.quick, guidance)
        recipe, groups = settled(recipe_of(config), self.counts), self.bed.groups
        sections = (config.base, config.synthesis, recipe, config.resources)
        way = find_way(*sections, str(bed.real), groups, f"{self.work}/way", config.seed)
        given = (recipe, config.prompts, [self.adapter], groups, self.counts)
        (voice,) = group_voices(*given, UNSEEN)
        drawing = Drawing.of(config, recipe, way, groups)
        generate = ImageGenerator(drawing, self.work, [voice.adapter])
        same = [[said] * images for said in (voice.prompt, voice.negative_prompt, voice.adapter)]
        seeds = [image_seed(config.seed, UNSEEN, 0, row) for row in range(images)]
        pixels = generate(*same, seeds, groups=[UNSEEN] * images)
        return accuracies(bed.judge, pixels, np.full(images, UNSEEN), groups)["both"]


def four(config: Config, groups: Groups, group: int) -> list[str]:
    """The prompts of a cell: both words, none, the label's, the attribute's."""
    both = spoken(config.prompts, groups, group)
    return [both, "", *each_alone(config.prompts, groups)[both]]


@cache
def bed_of(folder: Path, seed: int) -> Bed:
    """Made once."""
    return Bed(folder, seed)
