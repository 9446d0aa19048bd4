"""How far apart a fine-tuned model keeps the groups, with and without a term of the loss.

One model of all groups of outfits at severity 0.99, 40 steps of 16 images, everything else at its
defaults; on held-out images (16 of each group, 6 noise levels): `d`, the mean squared distance of
what is said under the own prompt and under that of the same label with the other attribute, and the
own error. `longer`: without any term, at the CPU time of the dearest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from workload import jobs_of, pack_of, write_real

from raysynth.adapters.banks import open_bank
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.training import train_pack
from raysynth.generators.recipe import recipe_of
from raysynth.groups.prompts import spoken
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base
from raysynth.models.latents import encode
from raysynth.models.likelihood import Measure, noise_of, step_errors
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis.task import Drawing

STEPS, LONGER, BATCH, EACH, LEVELS = 40, 70, 16, 16, 6
OFF, LONG, CBDM, OVERLAP = "off", "longer", "cbdm", "overlap"
AT_ONCE = 128


def separated(folder: Path, seed: int, quick: bool, arms: Sequence[str]) -> dict[str, float]:
    """Distances and errors of arms, as ratios to the arm without a term."""
    off = of_arm(folder, seed, OFF)
    found = {"base d": of_arm(folder, seed, "base")["d"], "off d": off["d"]}
    found |= {"off error": off["error"], "off CPU s": off["seconds"]}
    for arm in (*arms, *(() if quick else (LONG,))):
        one = of_arm(folder, seed, arm)
        found[f"{arm} / off"] = one["d"] / off["d"]
        found[f"{arm} error / off"] = one["error"] / off["error"]
        found[f"{arm} CPU s"] = one["seconds"]
    return {name: round(value, 4) for name, value in found.items()}


@cache
def of_arm(folder: Path, seed: int, arm: str) -> dict[str, float]:
    """One model's distance, own error and CPU seconds of training; trained once."""
    config = configured(seed, arm)
    data, groups, listing = list_dataset(config.dataset, seed)
    train, test = (listing.filter(pc.equal(listing["split"], s)) for s in ("train", "test"))
    real, work, spent = folder / f"separation-{seed}", folder / f"{arm}-{seed}", 0.0
    if not real.exists():
        write_real(real, data, groups, train)
    base = load_base(config.base)
    if arm != "base":
        group = train["group"].to_numpy()
        clusters = pa.table({"id": train["id"], "group": group, "cluster": np.zeros_like(group)})
        jobs = jobs_of(config, clusters, groups)
        began = time.process_time()
        failed = train_pack(pack_of(config, jobs, groups, str(real), str(work)), _quiet)
        spent = time.process_time() - began
        assert not failed, failed
        names, shape = [job.name for job in jobs], Drawing.of(config).lora
        bank = open_bank(base, str(work), names, recipe_of(config).training, shape)
        bank.use(names, 1)
    rows = held_out(test["group"].to_numpy(), groups.count, EACH, seed)
    pixels = decode_bytes(pa.array(data.images(test.take(rows))))
    prompts = [spoken(config.prompts, groups, g) for g in range(groups.count)]
    clean, group = encode(base, pixels), test["group"].to_numpy()[rows]
    ids = test["id"].take(rows).to_pylist()
    return measured(base, clean, torch.from_numpy(group).long(), prompts, ids) | {"seconds": spent}


def configured(seed: int, arm: str) -> Config:
    """The configuration of an arm."""
    tuned: dict[str, Any] = {"steps": LONGER if arm == LONG else STEPS, "batch_size": BATCH}
    tuned["terms"] = [arm] if arm in (CBDM, OVERLAP) else []
    dataset = {"severity": 0.99}
    given = {"seed": seed, "generator": "shared", "dataset": dataset, "finetune": tuned}
    return Config.model_validate(given)


def held_out(group: np.ndarray, groups: int, each: int, seed: int) -> np.ndarray:
    """Row numbers of `each` images of every group."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(group == g))[:each] for g in range(groups)]
    )


@torch.inference_mode()
def measured(
    base: Base, clean: torch.Tensor, group: torch.Tensor, prompts: Sequence[str], ids: Sequence[str]
) -> dict[str, float]:
    """Mean distance to the sister attribute, and mean own error."""
    denoise, told = Denoiser(base, base.model), base.condition(list(prompts))
    shares, noise = (
        (torch.arange(LEVELS) + 0.5) / LEVELS,
        noise_of(ids, range(LEVELS), clean[0].shape),
    )
    sister = group // 2 * 2 + (1 - group % 2)
    apart = []
    for k, share in enumerate(shares):
        timestep = base.prediction.at(share.expand(len(clean)))
        noisy, _ = base.prediction.noised(clean, noise[:, k], timestep)
        own, other = (denoise(noisy, timestep, told.take(g)).raw for g in (group, sister))
        apart.append(float((own - other).square().mean()))
    how = Measure(at_once=AT_ONCE)
    errors = step_errors(denoise, clean, told, shares, noise, group[:, None], how)
    return {"d": float(np.mean(apart)), "error": float(errors.mean())}


def _quiet(done: dict[str, int], *more: object, **told: object) -> None:
    pass
