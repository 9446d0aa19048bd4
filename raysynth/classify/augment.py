"""Augmentation of a whole batch at once: horizontal flips and random crops, seeded."""

from __future__ import annotations

import torch
from torch import Tensor


def augmented(images: Tensor, generator: torch.Generator, flip: bool, padding: int) -> Tensor:
    """Each image mirrored with probability 1/2, and cropped at random from its padded self.

    Parameters
    ----------
    images : [B, 3, H, W], any dtype; not changed.
    generator : on the CPU, so that a seed gives the same augmentation on any device.
    padding : pixels of reflected border before cropping back to [H, W]; 0: no crops.
    """
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(
            mirrored.to(images.device)[:, None, None, None], images.flip(3), images
        )
    return random_crops(images, generator, padding) if padding else images


def random_crops(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Crops of the images' own size at independent offsets; one gather for the batch."""
    count, _, height, width = images.shape
    shifts = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + shifts[0]).to(images.device)  # [B, H]
    columns = (torch.arange(width) + shifts[1]).to(images.device)  # [B, W]
    # Reflecting the indices spares a padded copy of the batch.
    rows = _reflected(rows - padding, height)
    columns = _reflected(columns - padding, width)
    which = torch.arange(count, device=images.device)[:, None, None]
    # Indices around a slice put the channels last: [B, H, W, 3].
    return images[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.minimum(index, 2 * (size - 1) - index).clamp(min=0)
