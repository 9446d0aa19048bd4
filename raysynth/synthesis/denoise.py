"""From seeds and conditions to latents: noise, a solver's steps, each of them guided.

Shapes: B images, C latent channels, H W latent sides.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Family
from raysynth.synthesis.guidance import Guide
from raysynth.synthesis.solver import lay_out


@dataclass(frozen=True)
class Edited:
    """Real images that are regenerated."""

    latents: Tensor
    """[B, C, H, W] float32, scaled by the autoencoder's factor."""
    strength: float
    """Share of the noise schedule that is put on them, in (0, 1]."""
    mask: Tensor | None = None
    """[B, 1, H, W], 1 where `strength` holds, 0 where `strength_outside` does; None: all ones."""
    strength_outside: Tensor | None = None
    """[B] share of the noise schedule outside the mask; 0: nothing changes there. None: all 0."""


def draw_noise(
    seeds: Sequence[int], shape: tuple[int, ...]
) -> tuple[Tensor, list[torch.Generator]]:
    """Each image's noise from its own seed, so that no image depends on its batch or worker.

    Drawn on the CPU in float32 (other devices have other generators). Returns [B, *shape] and the
    generators, which stochastic solvers go on with.
    """
    generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
    noise = torch.stack([torch.randn(shape, generator=g, dtype=torch.float32) for g in generators])
    return noise, generators


@torch.inference_mode()
def denoise(
    network: Callable[..., Denoiser],
    solver: Any,
    noise: Tensor,
    generators: list[torch.Generator],
    condition: Condition,
    guide: Guide,
    steps: int | Sequence[float],
    edited: Edited | None = None,
    begun: Tensor | None = None,
    parted: Sequence[float] = (),
) -> Tensor:
    """Latents of images, as diffusers computes them.

    Parameters
    ----------
    network : what predicts for a batch of the images this many times, adapters in use; with
        `parted`, those of which expert.
    noise : [B, C, H, W] float32 standard normal.
    condition : B rows of each of `guide.rows`, in that order.
    steps : number of the solver's steps, or their levels (`schedule`).
    edited : real images to start from instead of pure noise.
    begun : [B, C, H, W] clean latents that are noised to the first of `steps`' levels instead.
    parted : noise levels at which another expert takes over (`finetune.experts`).

    Returns
    -------
    [B, C, H, W] float32 latents, still scaled by the autoencoder's factor.
    """
    rows, expert = guide.rows, len(parted)  # the highest levels' first
    denoiser = network(len(rows), expert) if parted else network(len(rows))
    device = denoiser.base.device
    noise, takes = noise.to(device), inspect.signature(solver.step).parameters
    extra = {"generator": generators} if "generator" in takes else {}
    begun = begun if edited is None else edited.latents
    family = denoiser.base.family
    latents, timesteps = _start(solver, edited, noise, steps, begun, family)
    held, count = _held(solver, edited, timesteps), len(timesteps)
    levels = _levels(guide, solver, timesteps, bool(parted))
    told = _told(guide, condition, levels, denoiser)
    for number, step in enumerate(timesteps):
        here = guide.rows_at(levels[number]), bisect_right(parted, levels[number])
        if here != (rows, expert):
            rows, expert = here
            denoiser = network(len(rows), expert) if parted else network(len(rows))
        x = torch.cat([latents] * len(rows)) if len(rows) > 1 else latents
        predicted = denoiser(scaled(solver, x, step), step, told[rows])
        each = dict(zip(rows, predicted.parts(len(rows)), strict=True))
        guided = guide(each, step, number, count, levels[number])
        latents = solver.step(guided.raw, step, latents, **extra, return_dict=False)[0]
        if edited is not None and number < len(held):
            real = edited.latents
            if number + 1 < count:
                real = noised(solver, real, noise, timesteps[number + 1])
            latents = torch.where(held[number], real, latents)
    return latents


def _levels(guide: Guide, solver: Any, timesteps: Tensor, parted: bool) -> list[float]:
    """[N] noise level of each step; where all are treated the same, no device is waited for."""
    if guide.everywhere and not parted:
        return [1.0] * len(timesteps)
    return (timesteps / solver.config.num_train_timesteps).tolist()


def _told(
    guide: Guide, condition: Condition, levels: Sequence[float], denoiser: Denoiser
) -> dict[tuple[str, ...], Condition]:
    """What the network is told, by the rows that steps evaluate, on its device."""
    size, found = len(condition) // len(guide.rows), {}
    for rows in dict.fromkeys(guide.rows_at(level) for level in levels):
        starts = [guide.rows.index(row) * size for row in rows]
        some = [number for start in starts for number in range(start, start + size)]
        mine = condition if rows == guide.rows else condition.take(some)
        found[rows] = mine.to(denoiser.base.device, denoiser.model.dtype)
    return found


def _start(
    solver: Any,
    edited: Edited | None,
    noise: Tensor,
    steps: int | Sequence[float],
    begun: Tensor | None,
    family: Family,
) -> tuple[Tensor, Tensor]:
    """What the first step is given, and the timesteps of all."""
    if edited is not None and isinstance(steps, int):
        return start_edit(solver, edited, noise, steps)
    if isinstance(steps, int):
        lay_out(solver, steps, device=noise.device, family=family)
    else:
        lay_out(solver, len(steps), steps, noise.device)
    timesteps = solver.timesteps
    if begun is not None:  # edits at full strength, see `solver.check_solver`
        return noised(solver, begun.to(noise.device), noise, timesteps[0]), timesteps
    return noise * getattr(solver, "init_noise_sigma", 1.0), timesteps  # flow matching's has none


def start_edit(solver: Any, edited: Edited, noise: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Noised real latents and the last timesteps of the solver's schedule, which begin there.

    SDEdit (Meng et al. 2022, arXiv 2108.01073, algorithm 1) on diffusers' solvers. The schedule is
    laid out with steps / strength steps, of which the last `steps` are taken: an edited image costs
    what a drawn one does, and the noise is that of the nearest level which the schedule has.
    """
    solver.set_timesteps(max(steps, round(steps / edited.strength)), device=noise.device)
    first = len(solver.timesteps) - steps
    if hasattr(solver, "set_begin_index"):
        solver.set_begin_index(first)
    timesteps = solver.timesteps[first:]
    return noised(solver, edited.latents, noise, timesteps[0]), timesteps


def _held(solver: Any, edited: Edited | None, timesteps: Tensor) -> list[Tensor]:
    """After each step [B, 1, H, W] bool, the places that are the real image's, as noisy as others.

    Those outside the mask, until the noise has fallen to their own level and they may change too
    (Levin & Fried 2023, arXiv 2306.00950, algorithm 1). Ends with the last step that holds any.
    """
    if edited is None or edited.mask is None:
        return []
    outside = torch.zeros(1) if edited.strength_outside is None else edited.strength_outside
    # At once, before the loop: a device is not asked at every step.
    levels = [*(timesteps[1:] / solver.config.num_train_timesteps).tolist(), 0.0]
    steps = sum(level >= float(outside.min()) for level in levels)
    kept, outside = edited.mask == 0, outside.to(edited.mask.device).view(-1, 1, 1, 1)
    return [kept & (level >= outside) for level in levels[:steps]]


def scaled(solver: Any, x: Tensor, timestep: Tensor) -> Tensor:
    """[B, C, H, W] noisy images as the network is given them; flow matching scales nothing."""
    if not hasattr(solver, "scale_model_input"):
        return x
    given: Tensor = solver.scale_model_input(x, timestep)
    return given


def noised(solver: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """[B, C, H, W] clean latents with the noise of a timestep that the solver is at."""
    level = timestep.expand(len(noise))
    if hasattr(solver, "scale_noise"):  # flow matching's name of it
        return solver.scale_noise(latents, level, noise)
    return solver.add_noise(latents, noise, level)
