"""Experts per noise level beside one model, at equal steps: who denoises held-out images better?

A LoRA of pullovers on grass (outfits at 0.99): 240 steps, or 120 and 40 for each of 3 experts. 96
test images with 8 noises in each bin: `bin`: mean error of the experts over that of the one model;
`lower`: bins in which it is lower; `p`: of a one-sided paired t-test over images, of all bins
together.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.stats import ttest_rel
from workload import jobs_of, pack_of, write_real

from raysynth.adapters.banks import open_bank
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.experts import edges, name_of
from raysynth.finetune.training import train_pack
from raysynth.generators.recipe import recipe_of
from raysynth.groups.prompts import spoken
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import encode
from raysynth.models.likelihood import Measure, noise_of, step_errors
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis.task import Drawing

GROUP, TEST, NOISES, EXPERTS, STEPS, QUICK_STEPS, AT_ONCE = 0, 96, 8, 3, 240, 60, 128


def configured(seed: int, experts: int, steps: int) -> Config:
    """The configuration of an arm."""
    tuned = {"steps": steps, "experts": experts}
    given = {"seed": seed, "generator": "lora", "dataset": {"severity": 0.99}, "finetune": tuned}
    return Config.model_validate(given)


def experts(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    torch.set_num_threads(1)
    errors, found = {}, {}
    for count in (1, EXPERTS):
        config = configured(seed, count, QUICK_STEPS if quick else STEPS)
        work = folder / f"experts-{count}-{config.finetune.steps}-{seed}"
        began = time.process_time()
        adapter = _trained(config, folder, work)
        found[f"CPU s: {count}"] = time.process_time() - began
        errors[count] = _errors(config, work, adapter, count)
    one, several = errors[1], errors[EXPERTS]
    ratios = several.mean((0, 2)) / one.mean((0, 2))
    found |= {f"bin {number}": float(ratio) for number, ratio in enumerate(ratios)}
    found["lower"] = float((ratios < 1).sum())
    found["all / one"] = float(several.mean() / one.mean())
    test = ttest_rel(several.mean((1, 2)), one.mean((1, 2)), alternative="less")
    found["p"] = float(test.pvalue)
    return {name: round(value, 4) for name, value in found.items()}


def _trained(config: Config, folder: Path, work: Path) -> str:
    """The adapter's name; it and its experts are trained unless they are there."""
    data, groups, listing = list_dataset(config.dataset, config.seed)
    train = listing.filter(pc.equal(listing["split"], "train"))
    real = folder / f"separation-{config.seed}"
    if not real.exists():
        write_real(real, data, groups, train)
    group = train["group"].to_numpy()
    clusters = pa.table({"id": train["id"], "group": group, "cluster": np.zeros_like(group)})
    (job,) = (job for job in jobs_of(config, clusters, groups) if job.group == GROUP)
    failed = train_pack(pack_of(config, [job], groups, str(real), str(work)))
    assert not failed, failed
    return job.name


@torch.inference_mode()
def _errors(config: Config, work: Path, adapter: str, count: int) -> Any:
    """[TEST, EXPERTS, NOISES] errors of held-out images, in each bin."""
    data, groups, listing = list_dataset(config.dataset, config.seed)
    table = listing.filter(pc.equal(listing["split"], "test"))
    rows = np.flatnonzero(table["group"].to_numpy() == GROUP)
    table = table.take(np.random.default_rng(config.seed).permutation(rows)[:TEST])
    base = load_base(config.base)
    clean = encode(base, decode_bytes(pa.array(data.images(table))))
    told = base.condition([spoken(config.prompts, groups, GROUP)])
    names = [name_of(adapter, n) for n in range(count)] if count > 1 else [adapter]
    shape = Drawing.of(config).lora
    bank = open_bank(base, str(work), names, recipe_of(config).training, shape)
    bounds, found = edges(base.prediction, EXPERTS, "mass"), []
    for number in range(EXPERTS):
        low, high = bounds[number : number + 2]
        uniform = low + (high - low) * (torch.arange(NOISES) + 0.5) / NOISES
        shares = base.prediction.draw(uniform) / base.prediction.timesteps
        draws = range(number * NOISES, (number + 1) * NOISES)
        noise = noise_of(table["id"].to_pylist(), draws, clean[0].shape)
        model = bank.use([names[number if count > 1 else 0]], 1)
        how = Measure(at_once=AT_ONCE)
        found.append(
            step_errors(Denoiser(base, model), clean, told, shares, noise, None, how)[:, 0]
        )
    return torch.stack(found, 1).cpu().numpy()
