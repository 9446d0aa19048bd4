"""Images to latents and back: the base model's autoencoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from raysynth.models.family import Base
from raysynth.sides import Size, sides_of

PIXELS_AT_ONCE = 2**20
"""What an autoencoder is given at once, four images of 512 x 512: 64 of them took 30 GB in bfloat16
(Stable Diffusion 1.5's encoder, measured on an H100)."""


def images_at_once(size: Size, most: int) -> int:
    """How many images of a size an autoencoder is given at once, at most `most`."""
    height, width = sides_of(size)
    return min(most, max(1, PIXELS_AT_ONCE // (height * width)))


def as_pixels(base: Base, images: np.ndarray) -> Tensor:
    """[B, 3, side, side] float32 in -1..1 on the base's device, of uint8 images [B, side, side, 3].

    Pixels are floats there; `moments` rounds them to the autoencoder's own precision.
    """
    images_BCHW = torch.from_numpy(images).to(base.device).permute(0, 3, 1, 2)
    return (images_BCHW.float() / 127.5 - 1).contiguous()


def moments(base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, C, H, W] float32 of the scaled latents of `as_pixels`."""
    with base.family.around_vae(base):
        posterior = base.vae.encode(pixels.to(base.vae.dtype)).latent_dist
    scale = base.vae.config.scaling_factor
    return (posterior.mean.float() - _shift(base)) * scale, posterior.std.float() * scale


@torch.inference_mode()
def encode(base: Base, images: np.ndarray) -> Tensor:
    """[B, C, H, W] float32 latents (the posterior's mean) of uint8 images [B, side, side, 3]."""
    return moments(base, as_pixels(base, images))[0]


@torch.inference_mode()
def decode(base: Base, latents: Tensor) -> np.ndarray:
    """[B, side, side, 3] uint8 images of latents [B, C, H, W]."""
    latents = (latents / base.vae.config.scaling_factor + _shift(base)).to(base.vae.dtype)
    with base.family.around_vae(base):
        x_BCHW = base.vae.decode(latents, return_dict=False)[0]
    x_BCHW = (x_BCHW.float() / 2 + 0.5).clamp(0, 1) * 255
    return x_BCHW.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _shift(base: Base) -> float:
    """What some autoencoders subtract before they scale."""
    return float(getattr(base.vae.config, "shift_factor", None) or 0.0)
