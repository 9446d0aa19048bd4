"""From seeds and text states to pixels: noise, classifier-free guidance, decoding.

Shapes: B images, C latent channels, H W latent sides, L text positions, D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysynth.models.loading import Base


def vae_factor(base: Base) -> int:
    """Pixels per latent position."""
    return 2 ** (len(base.vae.config.block_out_channels) - 1)


def latent_shape(base: Base, image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W) of the latents of one image of `image_size` pixels (None: the base model's own)."""
    channels, height, width = base.latent_shape
    if image_size is None:
        return channels, height, width
    side = image_size // vae_factor(base)
    return channels, side, side


def draw_noise(
    seeds: Sequence[int], shape: tuple[int, int, int]
) -> tuple[Tensor, list[torch.Generator]]:
    """Each image's noise from its own seed, so that no image depends on its batch or worker.

    Drawn on the CPU in float32 (other devices have other generators). Returns [B, C, H, W] and the
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
) -> Tensor:
    """Latents of images (Ho & Salimans 2022, classifier-free guidance), as diffusers computes them.

    Parameters
    ----------
    noise : [B, C, H, W] float32 standard normal.
    states : [B, L, D] text states of the prompts or, where `guidance_scale` > 1,
        [2B, L, D]: those of the negative prompts first, then those of the prompts.

    Returns
    -------
    [B, C, H, W] float32 latents, still scaled by the autoencoder's factor.
    """
    solver.set_timesteps(steps, device=base.device)
    extra = {}
    if "generator" in inspect.signature(solver.step).parameters:
        extra["generator"] = generators
    latents = noise.to(base.device) * solver.init_noise_sigma
    guided = guidance_scale > 1
    states = states.to(base.device, base.unet.dtype)
    for step in solver.timesteps:
        x = torch.cat([latents, latents]) if guided else latents
        x = solver.scale_model_input(x, step).to(base.unet.dtype)
        with base.autocast():
            predicted = base.unet(x, step, encoder_hidden_states=states, return_dict=False)[0]
        predicted = predicted.float()
        if guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + guidance_scale * (positive - negative)
        latents = solver.step(predicted, step, latents, **extra, return_dict=False)[0]
    return latents


@torch.inference_mode()
def decode(base: Base, latents: Tensor) -> np.ndarray:
    """[B, side, side, 3] uint8 pixels of latents [B, C, H, W]."""
    latents = (latents / base.vae.config.scaling_factor).to(base.vae.dtype)
    with base.autocast():
        x_BCHW = base.vae.decode(latents, return_dict=False)[0]
    x_BCHW = (x_BCHW.float() / 2 + 0.5).clamp(0, 1) * 255
    return x_BCHW.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
