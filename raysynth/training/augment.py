"""Augmentation of a whole batch at once: horizontal flips and random crops, seeded."""

from __future__ import annotations

import torch
from torch import Tensor


def augmented(images: Tensor, generator: torch.Generator, flip: bool, padding: int) -> Tensor:
    """Each image mirrored with probability 1/2, then cropped at random from its padded self.

    Flip and crop are one gather: where every pixel comes from is worked out on indices, and
    reflecting these spares a padded copy of the batch.

    Parameters
    ----------
    images : [B, C, H, W], any dtype; not changed.
    generator : on the CPU, so that a seed gives the same augmentation on any device.
    padding : pixels of reflected border before cropping back to [H, W]; 0: no crops.
    """
    if not flip and not padding:
        return images
    count, channels, height, width = images.shape
    rows, columns = torch.arange(height), torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5 if flip else None
    if padding:
        shifts = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator) - padding
        rows = _reflected(rows + shifts[0], height)  # [B, H]
        columns = _reflected(columns + shifts[1], width)  # [B, W]
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    where = images.device  # B * (H + W) numbers are sent, not B * H * W
    rows, columns = rows.to(where).view(-1, height, 1), columns.to(where).view(-1, 1, width)
    source = (rows * width + columns).reshape(-1, 1, height * width)  # [B or 1, 1, H * W]
    flat = images.reshape(count, channels, height * width)
    return flat.gather(2, source.expand(count, channels, -1)).view(images.shape)


def _reflected(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.minimum(index, 2 * (size - 1) - index).clamp(min=0)
