"""DiffEdit's masks: which part of a real image the attribute's words are about.

Couairon et al. 2023 (arXiv 2210.11427), step 1: the image is noised half-way, the model predicts it
under the words that are true of it and under others, and where the two predictions differ is what
the words are about. Only that part is regenerated: a garment, a face or a bird stays the real one.

Shapes: B images, C latent channels, H W latent sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.synthesis.denoise import Edited, draw_noise, scaled, start_edit
from raysynth.synthesis.settings import MASK_DRAWS

LEVEL = 0.5
"""Noise put on the image, as a share of the schedule (theirs)."""
RESOLUTION = 10
"""Steps of the schedule from there on: how nearly `LEVEL` is met."""
VALUES = 2**16
"""Values of a range; seeds are uniform far beyond."""
SALT = 0x6D61736B
"""Sets the mask's noise apart from the image's own."""


@torch.inference_mode()
def attribute_mask(
    denoiser: Denoiser,
    solver: Any,
    latents: Tensor,
    condition: Condition,
    seeds: Sequence[int],
    margin: int,
) -> Tensor:
    """[B, 1, H, W] float32, 1 where the attribute is, 0 where the image is kept.

    Parameters
    ----------
    denoiser : with the adapters of these rows in use.
    latents : [B, C, H, W] of the real images, scaled.
    condition : 2B rows: of `Contrast.true`, then of `Contrast.other`.
    seeds : [B] of the images.
    margin : latent positions that the mask is widened by: a position on the attribute's edge shows
        some of it, which would stay as a trace of the group that the image is of.
    """
    device = denoiser.base.device
    condition = condition.to(device, denoiser.model.dtype)
    # One draw after another from an image's own generator: no image depends on its batch.
    _, height, width = latents.shape[1:]
    noise, _ = draw_noise([s ^ SALT for s in seeds], (MASK_DRAWS, *latents.shape[1:]))
    differences = torch.zeros(len(latents), height, width, device=device)
    for draw in noise.to(device).unbind(1):
        noisy, timesteps = start_edit(solver, Edited(latents, LEVEL), draw, RESOLUTION)
        x = scaled(solver, torch.cat([noisy, noisy]), timesteps[0])
        true, other = denoiser(x, timesteps[0], condition).parts(2)
        differences += (true.raw - other.raw).abs().mean(1)
    mask = otsu(differences.flatten(1)).view(-1, 1, height, width)
    return F.max_pool2d(mask, 2 * margin + 1, stride=1, padding=margin)


def spread_over(range_: tuple[float, float], seeds: Sequence[int]) -> Tensor:
    """[B] float32, every image's own value of a range, a function of its seed alone."""
    share = torch.tensor([seed % VALUES / VALUES for seed in seeds])
    low, high = range_
    return low + (high - low) * share


def otsu(values: Tensor) -> Tensor:
    """[B, N] float32, 1 above each row's threshold, which parts it into two classes (Otsu 1979).

    The threshold of the largest variance between the classes. DiffEdit's own, a multiple of the
    mean, supposes that the attribute is a small part of the image; a background is most of it.
    """
    ordered, _ = values.sort(dim=1)
    count = values.shape[1]
    below = torch.arange(1, count, device=values.device)
    low = ordered.cumsum(1)[:, :-1]
    high = ordered.sum(1, keepdim=True) - low
    between = below * (count - below) * (low / below - high / (count - below)).square()
    threshold = ordered.gather(1, between.argmax(1, keepdim=True))
    return (values > threshold).float()
