"""Pixels and latents of a run's training images: of as many as fit, small groups whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from raysynth.finetune.material import ENCODE_BATCH, read_images
from raysynth.models.family import Base
from raysynth.models.latents import encode, images_at_once
from raysynth.storage.tables import read_table, split_files

IMAGES, PIXELS = 2000, 2**27
"""Real images that are encoded, at most, and their pixels: 512 images of 512 x 512."""


def real_latents(base: Base, real: str, side: int) -> tuple[Tensor, np.ndarray]:
    """[N, C, H, W] float32 latents on the CPU, scaled, and [N] groups of training images.

    Parameters
    ----------
    base : with its autoencoder.
    real, side : see `real_pixels`.
    """
    pixels, group = real_pixels(real, side)
    batches = np.array_split(pixels, -(-len(pixels) // images_at_once(side, ENCODE_BATCH)))
    return torch.cat([encode(base, some).float().cpu() for some in batches]), group


def real_pixels(real: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, side, side, 3] uint8 pixels and [N] groups of training images.

    `real`: folder or URI of the real table; `side`: pixels.
    """
    table = read_table(real, ["id", "group"], split_files(real, "train")).sort_by("id")
    group = table["group"].to_numpy()
    rows = evenly(group, min(IMAGES, max(1, PIXELS // side**2)))
    return read_images(real, table["id"].take(rows).to_pylist(), side), group[rows]


def evenly(group: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most `most` images: each group's evenly spaced, small groups whole.

    `group`: [N] of all images.
    """
    sizes = np.bincount(group)
    left, shares = most, np.zeros(len(sizes), int)
    for rank, g in enumerate(np.argsort(sizes, kind="stable")):
        shares[g] = min(sizes[g], left // (len(sizes) - rank))
        left -= shares[g]
    found = [
        np.flatnonzero(group == g)[np.arange(share) * size // max(share, 1)]
        for g, (share, size) in enumerate(zip(shares, sizes, strict=True))
    ]
    return np.sort(np.concatenate(found))
