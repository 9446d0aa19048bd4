"""The Diffusion Classifier: which condition a diffusion model explains an image best under.

Li et al. 2023 (arXiv 2303.16203), algorithm 2: in stages, at each of which some more timesteps are
looked at and fewer conditions go on; all conditions see the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.likelihood import USUAL, Measure, step_errors


@dataclass(frozen=True)
class Judged:
    """What is found of B images."""

    group: Tensor
    """[B] int64 the condition of the least mean error, of those that were left."""
    margin: Tensor
    """[B] float32 least mean error of another condition that was left, less that of the own, or of
    `group` where no own one is known."""


def judged(
    denoise: Denoiser,
    clean: Tensor,
    condition: Condition,
    noise: Tensor,
    times: Sequence[Sequence[int]],
    keep: Sequence[int],
    own: Tensor | None = None,
    how: Measure = USUAL,
) -> Judged:
    """Judge latents [B, C, h, w] under N conditions.

    Parameters
    ----------
    noise : [B, K, C, h, w], one for each of K timesteps, which are spread evenly.
    times : of each stage, the timesteps that it adds, in 0..K-1.
    keep : conditions that go on after each stage; of the last, which is the answer, 1.
    own : [B] int64, a condition of each image that always goes on, so that its margin is known to
        the end (ours: of real images nobody knows one); None: the best go on.
    """
    shares = (torch.arange(noise.shape[1]) + 0.5) / noise.shape[1]
    left = torch.arange(len(condition)).expand(len(clean), -1)
    total, seen = torch.zeros(left.shape), 0
    for stage, added in enumerate(times):
        place = list(added)
        some = (shares[place], noise[:, place])
        errors = step_errors(denoise, clean, condition, *some, left, how)
        total = total + errors.sum(-1).cpu()
        seen += len(place)
        if stage + 1 < len(times):
            first = total if own is None else total.masked_fill(left == own[:, None], -1.0)
            order = first.argsort(dim=1, stable=True)[:, : keep[stage]]
            left, total = left.gather(1, order), total.gather(1, order)
    mean = total / seen
    best = left.gather(1, mean.argmin(1, keepdim=True))[:, 0]
    mine = left == (best if own is None else own)[:, None]
    others = mean.masked_fill(mine, torch.inf).min(1).values
    return Judged(best, others - mean[mine])
