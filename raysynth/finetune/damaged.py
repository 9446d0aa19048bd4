"""What is missing of images, and how noisy they are, in the latents of an autoencoder.

Shapes: N images of S x S pixels, [C, h, w] latents.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from raysynth.finetune.draws import dice_of
from raysynth.finetune.jobs import Job
from raysynth.models.family import Base
from raysynth.models.latents import as_pixels, images_at_once, moments

AT_ONCE = 64


def missing_pixels(masks: Sequence[bytes], side: int) -> Tensor:
    """[N, 1, S, S] float32, 1 where a pixel is missing, of PNG masks (empty: nowhere).

    A mask is cut and scaled as its image is; a pixel that mixes missing ones is missing.
    """
    found = torch.zeros(len(masks), 1, side, side)
    for row, mask in enumerate(masks):
        if mask:
            there = Image.open(io.BytesIO(mask), formats=("PNG",)).convert("L")
            fitted = there if there.size == (side, side) else ImageOps.fit(there, (side, side))
            found[row, 0] = torch.from_numpy(np.asarray(fitted) < 255)
    return found


def missing_positions(hidden: Tensor, side: int, margin: int) -> Tensor:
    """[N, 1, h, w] float32, 1 where a latent's own pixels, or those `margin` around it, miss any.

    `side`: of the latents.
    """
    factor = hidden.shape[-1] // side
    found = F.max_pool2d(hidden, factor)
    return F.max_pool2d(found, 2 * margin + 1, stride=1, padding=margin) if margin else found


@torch.no_grad()
def latent_noise(base: Base, pixels: np.ndarray, noise: Tensor, job: Job, seed: int) -> float:
    """Standard deviation in latents per standard deviation in 0..255 of pixels, around `noise`.

    Measured by noise that is added to images [N, S, S, 3]; `noise`: [N] of theirs, 0: none.
    """
    if not noise.any():
        return 0.0
    usual = float(noise[noise > 0].mean())
    dice, changes = dice_of(job, seed, "damaged/noise"), []
    for some in _batches(pixels):
        x = as_pixels(base, some)
        added = torch.from_numpy(dice.standard_normal(x.shape, np.float32)).to(x.device)
        moved = moments(base, x + added * (usual * 2 / 255))[0]
        changes.append((moved - moments(base, x)[0]).square().mean())
    return float(torch.stack(changes).mean().sqrt()) / usual


@torch.no_grad()
def leak(base: Base, pixels: np.ndarray, hidden: Tensor, missing: Tensor) -> float | None:
    """Mean change of latents that count as seen, when missing pixels become another image's.

    As a share of the latents' standard deviation; None where nothing is missing, or seen.
    """
    others, gone = np.roll(pixels, 1, axis=0), hidden.permute(0, 2, 3, 1).numpy() > 0
    swapped = np.where(gone, others, pixels)
    whole, mixed = (
        torch.cat([moments(base, as_pixels(base, some))[0] for some in _batches(each)]).cpu()
        for each in (pixels, swapped)
    )
    rows = hidden.flatten(1).amax(1) > 0
    seen = (missing[rows] == 0).expand_as(whole[rows])
    if not seen.any():
        return None
    return round(float((mixed - whole)[rows][seen].abs().mean() / whole.std()), 4)


def _batches(pixels: np.ndarray) -> list[np.ndarray]:
    return np.array_split(pixels, -(-len(pixels) // images_at_once(pixels.shape[1], AT_ONCE)))
