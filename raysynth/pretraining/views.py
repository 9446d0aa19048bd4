"""Views of images: mirrored and shifted as they may be met; stronger ones for the two encoders."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from raysynth.pretraining.settings import PretrainingConfig
from raysynth.training.augment import augmented

ZOOM = (0.8, 1.1)
"""Of the strong views."""
TINT, GAIN = 0.12, 0.12
"""Spread of the strong views' colours and brightness, log-normal."""


def views(pixels: Tensor, settings: PretrainingConfig, dice: torch.Generator) -> Tensor:
    """[B, 3, S, S] uint8 images as floats in 0..1, mirrored and shifted."""
    return augmented(pixels, dice, settings.mirror, settings.shift).float() / 255


def strong_views(pixels: Tensor, settings: PretrainingConfig, dice: torch.Generator) -> Tensor:
    """As `views`, zoomed, tinted, brighter or darker too."""
    images = views(pixels, settings, dice)
    count = len(images)
    low, high = ZOOM
    zoom = 1 / (low + (high - low) * torch.rand(count, generator=dice))
    frame = torch.zeros(count, 2, 3)
    frame[:, 0, 0] = frame[:, 1, 1] = zoom
    grid = F.affine_grid(frame, list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    tint = torch.exp(TINT * torch.randn(count, 3, 1, 1, generator=dice))
    gain = torch.exp(GAIN * torch.randn(count, 1, 1, 1, generator=dice))
    return (seen * tint * gain).clamp(0, 1)
