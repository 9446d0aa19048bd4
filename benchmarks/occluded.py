"""GSURE beside other ways to learn from damaged images: how well is the whole image denoised?

256 latents of pullovers on grass (outfits at 0.99), 3 in 10 positions missing, the others with
noise of standard deviation 0.5; all weights of the embedded base in float32, 25 steps of 16. Of 96
whole test images, at 8 noise levels, the base's own error: `base` as it is; `oracle`, trained on
the whole images; `zero-fill`, on the damaged ones as if they were whole; `masked`, the same where
they are seen; `stein`, `released`, `none`: GSURE with each divergence. `strange`: the same with
inverted colours, which the base does not know.
"""

from __future__ import annotations

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.objective import Noised
from raysynth.finetune.objectives.gsure import Gsure, GsureKnobs
from raysynth.groups.prompts import spoken
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.latents import encode
from raysynth.storage.tables import decode_bytes

GROUP, IMAGES, TEST, BATCH, LEVELS = 0, 256, 96, 16, 8
STEPS, SIGMA, MISSING, RATE, WARM_UP = 25, 0.5, 0.3, 2e-4, 10
DIVERGENCES = ("stein", "released", "none")
ARMS = ("oracle", "zero-fill", "masked", *DIVERGENCES)


class Bed:
    """Latents of training and test images, and what is missing of the former."""

    def __init__(self, seed: int, strange: bool) -> None:
        config = Config.model_validate({"seed": seed, "dataset": {"severity": 0.99}})
        data, groups, listing = list_dataset(config.dataset, seed)
        self.base = load_base(config.base.model_copy(update={"dtype": "float32"}))
        rng, latents = np.random.default_rng(seed), {}
        for split, count in (("train", IMAGES), ("test", TEST)):
            table = listing.filter(pc.equal(listing["split"], split))
            rows = rng.permutation(np.flatnonzero(table["group"].to_numpy() == GROUP))[:count]
            pixels = decode_bytes(pa.array(data.images(table.take(rows))))
            pixels = 255 - pixels if strange else pixels
            latents[split] = torch.cat([encode(self.base, some) for some in np.split(pixels, 8)])
        self.whole, self.test = latents["train"].clone(), latents["test"].clone()
        dice = torch.Generator().manual_seed(seed)
        drawn = torch.rand((IMAGES, 1, *self.whole.shape[2:]), generator=dice)
        self.missing = (drawn <= MISSING).float()
        noisy = self.whole + SIGMA * torch.randn(self.whole.shape, generator=dice)
        self.damaged = (1 - self.missing) * noisy
        self.noise = torch.randn((LEVELS, *self.test.shape), generator=dice)
        self.told = self.base.condition([spoken(config.prompts, groups, GROUP, token="")])

    @torch.no_grad()
    def error(self, denoise: Denoiser) -> float:
        """Mean squared error of the base's own prediction, of whole test images."""
        found = []
        for level in range(LEVELS):
            share = torch.full((len(self.test),), (level + 0.5) / LEVELS)
            timestep = self.base.prediction.at(share)
            noisy, target = self.base.prediction.noised(self.test, self.noise[level], timestep)
            said = denoise(noisy, timestep, self.told.take([0] * len(self.test)))
            found.append(float((said.raw - target).square().mean()))
        return float(np.mean(found))

    def batch(self, arm: str, denoise: Denoiser, dice: torch.Generator) -> tuple[Noised, Tensor]:
        """A step's images as an arm is given them, and what is seen of them."""
        rows = torch.randint(0, IMAGES, (BATCH,), generator=dice)
        noise, probe = (
            torch.randn((BATCH, *self.whole.shape[1:]), generator=dice) for _ in range(2)
        )
        uniform = torch.rand(BATCH, generator=dice).clamp(1e-4, 1 - 1e-4)
        clean = (self.whole if arm == "oracle" else self.damaged)[rows]
        timestep = self.base.prediction.draw(uniform)
        x, target = self.base.prediction.noised(clean, noise, timestep)
        known = {"missing": self.missing[rows], "sigma": torch.full((BATCH,), SIGMA)}
        told = self.told.take([0] * BATCH)
        given: dict[str, Any] = {"also": {}, "differs": {}, "values": {}, "images": known}
        given |= {"clean": clean, "noise": noise, "target": target, "draw_probe": lambda: probe}
        return Noised(denoise, x, timestep, told, **given), 1 - self.missing[rows]

    def trained(self, arm: str, seed: int, steps: int) -> Denoiser:
        """The base after the steps of an arm."""
        model = copy.deepcopy(self.base.model).requires_grad_(True)
        denoise, dice = Denoiser(self.base, model), torch.Generator().manual_seed(seed + 1)
        optimizer = torch.optim.AdamW(
            model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01
        )
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
            optimizer.zero_grad()
            loss_of(arm, *self.batch(arm, denoise, dice)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return denoise


def loss_of(arm: str, batch: Noised, seen: Tensor) -> Tensor:
    """The mean loss of an arm."""
    if arm in DIVERGENCES:
        knobs = GsureKnobs.model_validate({"divergence": arm})
        return Gsure().losses(batch, batch.denoise, knobs).mean()
    error = (batch.predicted.raw - batch.target).square()
    return (error * seen if arm == "masked" else error).mean()


def occluded(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for bed, named in ((Bed(seed, False), "{}"), (Bed(seed, True), "strange: {}")):
        found[named.format("base")] = bed.error(Denoiser(bed.base, bed.base.model))
        train = partial(bed.trained, seed=seed, steps=STEPS)
        for arm in ARMS:
            began = time.process_time()
            denoise = train(arm)
            spent = time.process_time() - began
            found[named.format(arm)] = bed.error(denoise)
            if named == "{}":
                found[f"CPU s: {arm}"] = spent
    return {name: round(value, 4) for name, value in found.items()}
