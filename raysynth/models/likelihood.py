"""How well a diffusion model explains images under conditions: the one routine of likelihoods.

Zero-shot classification, labelling and attribution compare errors at the same noise and the same
timesteps for every condition; independent noise would hide what words make.

Shapes: B images, N conditions that each is explained under, K timesteps, [C, h, w] latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.prediction import Predicted, Prediction

Terms = Literal["velocity", "noise", "clean"]
"""In whose terms an error is. Of rectified flow at s, an error of the noise is 1-s, and one of the
clean image s times that of the velocity."""


@dataclass(frozen=True)
class Measure:
    """How errors are measured."""

    power: float = 2.0
    terms: Terms = "velocity"
    at_once: int | None = None
    """Rows that the network sees at once; None: all."""


USUAL = Measure()
ENDS = (0.01, 0.99)
"""Lowest and highest share of the noise schedule that a bound is of."""


def noise_of(names: Sequence[str], draws: Sequence[int], shape: Sequence[int]) -> Tensor:
    """[B, K, C, h, w] normal numbers: draw number k of an image, of its name and k alone.

    Drawn on the CPU, so that what is said of an image depends on no batch, worker or device.
    """
    found = torch.empty(len(names), len(draws), *shape)
    for row, name in enumerate(names):
        for place, draw in enumerate(draws):
            digest = hashlib.blake2b(f"likelihood/{name}/{draw}".encode(), digest_size=8).digest()
            dice = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
            found[row, place] = torch.randn(*shape, generator=dice)
    return found


def step_errors(
    denoise: Denoiser,
    clean: Tensor,
    condition: Condition,
    shares: Tensor,
    noise: Tensor,
    told: Tensor | None = None,
    how: Measure = USUAL,
) -> Tensor:
    """[B, N, K] mean over C, h, w of |error| ** power; same noise and timestep for all conditions.

    Li et al. 2023 (arXiv 2303.16203), algorithm 1, for any prediction type.

    Parameters
    ----------
    clean : [B, C, h, w] latents, on the network's device.
    condition : what images are explained under.
    shares : [K] of the noise schedule, in (0, 1).
    noise : [B, K, C, h, w].
    told : [B, N] int, rows of `condition` of each image; None: all, for every image.
    """
    if told is None:
        told = torch.arange(len(condition)).expand(len(clean), -1)
    times, device = len(shares), clean.device
    each, prediction = told.shape[1] * times, denoise.base.prediction
    timesteps, found = prediction.at(shares).to(device), []
    for rows in torch.arange(len(clean) * each).split(how.at_once or len(clean) * each):
        image, k = rows // each, rows % times
        said_under = condition.take(told[image, rows % each // times])
        drawn = noise[image, k].to(device)
        noisy, target = prediction.noised(clean[image], drawn, timesteps[k])
        said = denoise(noisy, timesteps[k], said_under)
        truth = Predicted(prediction, noisy, timesteps[k], target)
        error = getattr(said, how.terms) - getattr(truth, how.terms)
        found.append(error.abs().pow(how.power).flatten(1).mean(1))
    return torch.cat(found).view(len(clean), -1, times)


def log_posterior(
    errors: Tensor, weights: Tensor, scale: float, prior: Tensor | None = None
) -> Tensor:
    """[B, N] log p(condition | image), of mean errors as energies: Li et al. 2023, equation 7.

    Parameters
    ----------
    errors : [B, N, K] of `step_errors`, squared.
    weights : [K] of the timesteps; their sum does not matter.
    scale : what a mean error is multiplied by; the larger, the surer.
    prior : [N] or [B, N] probabilities of the conditions; None: all alike.
    """
    evidence = -scale * (errors * (weights / weights.sum())).sum(-1)
    if prior is not None:
        evidence = evidence + prior.log()
    return evidence.log_softmax(-1)


def elbo(
    denoise: Denoiser,
    clean: Tensor,
    condition: Condition,
    shares: Tensor,
    noise: Tensor,
    at_once: int | None = None,
    told: Tensor | None = None,
) -> Tensor:
    """[B, N] evidence lower bound of images on a grid of noise levels, up to what has no model.

    -1/2 sum over k of (SNR(s_k-1) - SNR(s_k)) || x_0 - f(x_k) ||^2: Kingma et al. 2021 (arXiv
    2107.00630), equation 13, one noise a level; valid for any schedule, rectified flow included.

    Parameters
    ----------
    shares : [K + 1] of the noise schedule, rising; the first is where the last step ends.
    noise : [B, K, C, h, w].
    told : as in `step_errors`.
    """
    prediction = denoise.base.prediction
    ratio = prediction.noise_to_signal(prediction.at(shares)).double().pow(-2)
    fall = (ratio[:-1] - ratio[1:]).to(clean.device, torch.float32)
    how = Measure(terms="clean", at_once=at_once)
    errors = step_errors(denoise, clean, condition, shares[1:], noise, told, how)
    return -0.5 * clean[0].numel() * (errors * fall).sum(-1)


def even_shares(prediction: Prediction, steps: int, ends: tuple[float, float] = ENDS) -> Tensor:
    """[steps + 1] rising shares of the noise schedule, with as many decibels between any two.

    Then `elbo` is as near to its limit of infinitely many steps with few of them: evenly apart in
    time, the first one alone weighs more than all others together.
    """
    low, high = prediction.at(torch.tensor(ends))
    first, last = (prediction.noise_to_signal(t[None]).double().log() for t in (low, high))
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    ratio = (first + (last - first) * share).exp().float()
    timesteps = prediction.not_below(torch.zeros(steps + 1), ratio)
    if prediction.alphas is not None:
        timesteps = timesteps + 0.5  # `at` rounds down
    return timesteps / prediction.timesteps
