"""Experts: models that a fine-tuning trains further for a part of the noise levels each.

After TDC, Li et al. 2023 (arXiv 2312.13307): a model learns all noise levels, then goes on as
several, each for the levels of one bin. Their number, how bins are cut, and how much each is pruned
are not published, and pruning stays out: `experts=1` is a training as it was, and so is its half
before the experts part.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raysynth.adapters.record import read_adapter
from raysynth.errors import ConfigError
from raysynth.finetune.jobs import Job
from raysynth.finetune.settings import FinetuneConfig

if TYPE_CHECKING:
    from raysynth.models.prediction import Prediction

TAILS = 0.01
"""Share of the training beyond either end of evenly cut decibels."""
CLOSE = 1e-6
"""How near uniform numbers come to bounds: on one, rounding would decide whose they are."""
GRID = 10_001
"""Points that decibels are looked up at."""


def name_of(name: str, number: int) -> str:
    """What an expert of an adapter is called."""
    return f"{name}.t{number}"


def names_of(names: Sequence[str], experts: int) -> list[str]:
    """The experts of adapters; none where there is one for all levels."""
    return [name_of(name, n) for name in names for n in range(experts)] if experts > 1 else []


def expanded(jobs: Sequence[Job], settings: FinetuneConfig) -> list[Job]:
    """The trainings of adapters: themselves, or each cut short, and then their experts."""
    if settings.experts == 1:
        return list(jobs)
    first = [replace(job, steps=_first(job, settings)) for job in jobs]
    return first + [expert for job in jobs for expert in _experts(job, settings)]


def _first(job: Job, settings: FinetuneConfig) -> int:
    """Steps before the experts part."""
    return min(job.steps, max(1, round(settings.experts_share * job.steps)))


def _experts(job: Job, settings: FinetuneConfig) -> list[Job]:
    count = settings.experts
    each, more = divmod(job.steps - _first(job, settings), count)
    return [
        replace(job, name=name_of(job.name, n), parent=job.name, bin=n, steps=each + (n < more))
        for n in range(count)
    ]


def check_experts(settings: FinetuneConfig, generator: str, jobs: Sequence[Job]) -> None:
    """Refuse experts that would not be trained; raises ConfigError."""
    if settings.experts == 1:
        return
    said = f"finetune.experts={settings.experts}"
    if not jobs:
        raise ConfigError(
            f"{said}: generator={generator} trains no model; expected one that does. Fix: "
            "generator=lora, or finetune.experts=1"
        )
    for job in jobs:
        if min(expert.steps for expert in _experts(job, settings)) < 1:
            raise ConfigError(
                f"{said}: of the {job.steps} steps of adapter {job.name}, "
                f"{job.steps - _first(job, settings)} are left for its experts; expected one for "
                "each at least. Fix: more finetune.max_passes or steps, a smaller "
                "finetune.experts_share, or finetune.experts=1"
            )


def next_of(queue: Sequence[Job], work: str) -> Job | None:
    """The first job that can begin: an expert waits for the adapter that it goes on from."""
    for job in queue:
        if not job.parent or read_adapter(f"{work}/{job.parent}") is not None:
            return job
    return None


def complete(work: str, job: Job, settings: FinetuneConfig) -> bool:
    """Whether an adapter and its experts are trained, below the stage's folder or URI."""
    names = [job.name, *names_of([job.name], settings.experts)]
    return all(read_adapter(f"{work}/{name}") is not None for name in names)


def edges(prediction: Prediction, experts: int, by: str) -> list[float]:
    """[N+1] rising bounds of the bins in the uniform numbers that timesteps are drawn by.

    `by`: mass, as much of the training for each; snr, as many decibels of the signal-to-noise ratio
    between the `TAILS`, where the first and the last bin take what lies beyond.
    """
    if by == "mass":
        return _whole([n / experts for n in range(experts + 1)], prediction)
    import torch

    uniform = np.linspace(TAILS, 1 - TAILS, GRID)
    timestep = prediction.draw(torch.from_numpy(uniform).float())
    decibels = prediction.snr_db(timestep).double().numpy()
    cut = np.linspace(decibels[0], decibels[-1], experts + 1)[1:-1]
    inner = np.interp(-cut, -decibels, uniform)
    return _whole([0.0, *inner.tolist(), 1.0], prediction)


def _whole(bounds: list[float], prediction: Prediction) -> list[float]:
    """The bounds, where a diffusion's are between two timesteps: each is of one bin."""
    if prediction.alphas is None:
        return bounds
    return [round(bound * prediction.timesteps) / prediction.timesteps for bound in bounds]


def levels_of(prediction: Prediction, experts: int, by: str) -> list[float]:
    """[N-1] rising noise levels, as shares of the schedule, at which the next expert takes over."""
    import torch

    inner = torch.tensor(edges(prediction, experts, by)[1:-1]) + CLOSE / 2
    found: list[float] = (prediction.draw(inner) / prediction.timesteps).tolist()
    return found


def expert_at(levels: Sequence[float], level: float) -> int:
    """Number of the expert for a noise level; `levels`: of `levels_of`."""
    return bisect_right(levels, level)


def within(
    uniform: np.ndarray[Any, Any], job: Job, settings: FinetuneConfig, prediction: Prediction
) -> np.ndarray[Any, Any]:
    """Uniform numbers in (0, 1) laid into a job's bin; of any other job, as they are."""
    if job.bin < 0:
        return uniform
    low, high = edges(prediction, settings.experts, settings.experts_by)[job.bin : job.bin + 2]
    laid = low + (high - low) * uniform.astype(np.float64)
    return laid.clip(low + CLOSE, high - CLOSE).astype(uniform.dtype)
