"""Batched flips and crops."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from raysynth.training.augment import augmented


def images(count: int = 6, side: int = 8) -> torch.Tensor:
    return torch.arange(count * 3 * side * side).view(count, 3, side, side)


def test_a_seed_fixes_the_augmentation():
    first = augmented(images(), torch.Generator().manual_seed(3), True, 2)
    again = augmented(images(), torch.Generator().manual_seed(3), True, 2)
    other = augmented(images(), torch.Generator().manual_seed(4), True, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_crop_is_a_window_of_the_reflected_image():
    padding, side = 2, 8
    batch = images()
    crops = augmented(batch, torch.Generator().manual_seed(0), False, padding)
    padded = F.pad(batch.float(), (padding,) * 4, mode="reflect").long()
    for crop, source in zip(crops, padded, strict=True):
        windows = [
            source[:, y : y + side, x : x + side]
            for y in range(2 * padding + 1)
            for x in range(2 * padding + 1)
        ]
        assert any(torch.equal(crop, window) for window in windows)


def test_flip_mirrors_about_half_and_changes_nothing_else():
    batch = images(200)
    flipped = augmented(batch, torch.Generator().manual_seed(0), True, 0)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, batch, strict=True)])
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(2)) for a, b in zip(flipped, batch, strict=True)]
    )
    assert (same ^ mirrored).all()
    assert 60 < mirrored.sum() < 140


def test_switched_off_it_is_the_identity():
    assert augmented(images(), torch.Generator(), False, 0) is not None
    assert torch.equal(augmented(images(), torch.Generator(), False, 0), images())
