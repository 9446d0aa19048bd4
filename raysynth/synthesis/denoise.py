"""From seeds and text states to pixels: noise, classifier-free guidance, decoding.

Shapes: B images, C latent channels, H W latent sides, L text positions, D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysynth.models.loading import Base
from raysynth.models.sources import vae_factor


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


def latent_shape(base: Base, image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W) of the latents of one image of `image_size` pixels (None: the base model's own)."""
    channels, height, width = base.latent_shape
    if image_size is None:
        return channels, height, width
    side = image_size // vae_factor(base.vae.config)
    return channels, side, side


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
    base: Base,
    solver: Any,
    noise: Tensor,
    generators: list[torch.Generator],
    states: Tensor,
    guidance_scale: float,
    steps: int,
    edited: Edited | None = None,
) -> Tensor:
    """Latents of images (Ho & Salimans 2022, classifier-free guidance), as diffusers computes them.

    Parameters
    ----------
    noise : [B, C, H, W] float32 standard normal.
    states : [B, L, D] text states of the prompts or, where `guidance_scale` > 1,
        [2B, L, D]: those of the negative prompts first, then those of the prompts.
    steps : evaluations of the UNet.
    edited : real images to start from instead of pure noise.

    Returns
    -------
    [B, C, H, W] float32 latents, still scaled by the autoencoder's factor.
    """
    noise, extra = noise.to(base.device), {}
    if "generator" in inspect.signature(solver.step).parameters:
        extra["generator"] = generators
    if edited is None:
        solver.set_timesteps(steps, device=base.device)
        latents, timesteps = noise * solver.init_noise_sigma, solver.timesteps
    else:
        latents, timesteps = start_edit(solver, edited, noise, steps)
    guided, held = guidance_scale > 1, _held(solver, edited, timesteps)
    states = states.to(base.device, base.unet.dtype)
    for number, step in enumerate(timesteps):
        x = torch.cat([latents, latents]) if guided else latents
        x = solver.scale_model_input(x, step).to(base.unet.dtype)
        with base.autocast():
            predicted = base.unet(x, step, encoder_hidden_states=states, return_dict=False)[0]
        predicted = predicted.float()
        if guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + guidance_scale * (positive - negative)
        latents = solver.step(predicted, step, latents, **extra, return_dict=False)[0]
        if edited is not None and number < len(held):
            real = edited.latents
            if number + 1 < len(timesteps):
                real = noised(solver, real, noise, timesteps[number + 1])
            latents = torch.where(held[number], real, latents)
    return latents


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


def noised(solver: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """[B, C, H, W] clean latents with the noise of a timestep that the solver is at."""
    level = timestep.expand(len(noise))
    if hasattr(solver, "scale_noise"):  # flow matching's name of it
        return solver.scale_noise(latents, level, noise)
    return solver.add_noise(latents, noise, level)


@torch.inference_mode()
def encode(base: Base, pixels: np.ndarray) -> Tensor:
    """[B, C, H, W] float32 latents (the posterior's mean) of uint8 pixels [B, side, side, 3]."""
    images_BCHW = torch.from_numpy(pixels).to(base.device).permute(0, 3, 1, 2)
    x_BCHW = (images_BCHW.float() / 127.5 - 1).contiguous().to(base.vae.dtype)
    with base.autocast():
        mean = base.vae.encode(x_BCHW).latent_dist.mean
    return (mean.float() - _shift(base)) * base.vae.config.scaling_factor


@torch.inference_mode()
def decode(base: Base, latents: Tensor) -> np.ndarray:
    """[B, side, side, 3] uint8 pixels of latents [B, C, H, W]."""
    latents = (latents / base.vae.config.scaling_factor + _shift(base)).to(base.vae.dtype)
    with base.autocast():
        x_BCHW = base.vae.decode(latents, return_dict=False)[0]
    x_BCHW = (x_BCHW.float() / 2 + 0.5).clamp(0, 1) * 255
    return x_BCHW.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _shift(base: Base) -> float:
    """What some autoencoders subtract before they scale."""
    return float(getattr(base.vae.config, "shift_factor", None) or 0.0)
