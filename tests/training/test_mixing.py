"""CutMix and MixUp: what is mixed with what, and that all else stays as without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.training.mixing import Mixing, cutmix, mixup
from raysynth.training.plan import Phase
from raysynth.training.trainset import training_set
from tests.training.tiny import tiny_data

JOINT = Phase("joint", 10, 1e-3, 0.0, ratio=0.5, real_share=0.8, joint_means=True)


def numbered(count: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are their own number everywhere, each of a label of its own."""
    pixels = torch.arange(float(count)).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    return pixels.clone(), torch.eye(count)


@pytest.mark.parametrize("mix", [cutmix, mixup])
@pytest.mark.parametrize("seed", range(8))
def test_shares_of_labels_are_shares_of_pixels(mix, seed):
    pixels, target = numbered(4)
    mixed, shares = mix(pixels, target, np.random.default_rng(seed))
    assert shares.sum(1).tolist() == pytest.approx([1.0] * 4)
    # With itself as its own label an image's mean pixel is the mean label.
    expected = shares @ torch.arange(4.0)
    assert mixed.mean((1, 2, 3)).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    others = {(row - 1) % 4 for row in range(4)}
    assert others == set(range(4))
    for row in range(4):
        mates = set(np.flatnonzero(shares[row].numpy()).tolist())
        assert mates <= {row, (row - 1) % 4}


def test_cutmix_pastes_one_box_and_mixup_none():
    pixels, target = numbered(2, 16)
    cut, _ = cutmix(pixels, target, np.random.default_rng(1))
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    rows, columns = np.nonzero(cut[0, 0].numpy())
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) > 0
    mixed, _ = mixup(pixels, target, np.random.default_rng(1))
    assert len(mixed[0].unique()) == 1 and 0 < float(mixed[0].unique()) < 1


def test_real_and_synthetic_images_are_mixed_apart():
    images = training_set(JOINT, tiny_data(), 0)
    mixing = Mixing.of(images, replace(JOINT, mix=1.0), 2, 0, 0)
    rows = next(images.batches(16, 0, 0))
    part = images.part[rows]
    assert part.tolist() == [0] * 8 + [1] * 8
    pixels = torch.from_numpy(part.astype(np.uint8) * 200).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    for _ in range(10):
        mixed, target = mixing(rows, pixels, torch.from_numpy(images.label[rows]))
        assert mixed.dtype == torch.float32 and torch.equal(mixed, pixels.float())
        assert target.shape == (16, 2)


def test_as_many_batches_as_asked_are_mixed_and_the_others_stay():
    images, data = training_set(JOINT, tiny_data(), 0), tiny_data()
    pixels, label = torch.from_numpy(data.train.pixels[:8]), torch.from_numpy(data.train.label[:8])
    never = Mixing.of(images, JOINT, 2, 0, 0)
    assert all(never(np.arange(8), pixels, label)[1] is label for _ in range(50))
    some = Mixing.of(images, replace(JOINT, mix=0.2), 2, 0, 0)
    kept = pixels.clone()
    mixed = sum(some(np.arange(8), pixels, label)[1] is not label for _ in range(1000))
    assert 160 < mixed < 240  # three standard deviations of a binomial are 38
    assert torch.equal(pixels, kept)


def test_cross_entropy_of_a_mixed_image_is_the_mixture_of_both():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    shares = torch.tensor([[0.7, 0.3, 0.0]])
    each = [F.cross_entropy(logits, torch.tensor([y])) for y in (0, 1)]
    assert F.cross_entropy(logits, shares).item() == pytest.approx(
        float(0.7 * each[0] + 0.3 * each[1])
    )
