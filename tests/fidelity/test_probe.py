"""What the probe reads off images, and off which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysynth.fidelity.probe import PROBED, cross_fitted, fit_probe, told_apart
from raysynth.groups.balance import evenly_of_each
from tests.training.tiny import tiny_groups

GROUPS = tiny_groups()


def features(group: np.ndarray, strength: float, width: int = 48) -> torch.Tensor:
    """Noise, and in two numbers the label and the attribute."""
    x = np.random.default_rng(1).normal(size=(len(group), width)).astype(np.float32)
    x[:, 0] += strength * (group // 2)
    x[:, 1] += strength * (group % 2)
    return torch.from_numpy(x)


def test_the_probe_looks_at_every_cluster():
    """Images lie by group, and within one by cluster: thirds of 300 images here."""
    rows = evenly_of_each(np.repeat([0, 1], [900, 30]), PROBED)
    assert (rows < 900).sum() <= PROBED and (rows >= 900).sum() == 30
    by_cluster = np.bincount(rows[rows < 900] // 300)
    assert len(by_cluster) == 3 and by_cluster.min() == by_cluster.max() >= 50


def test_label_and_attribute_are_read_and_told_of_the_wrong_group():
    group = np.repeat(np.arange(4), [60, 20, 20, 60])
    probe = fit_probe(features(group, 8.0), group, GROUPS)
    seen = features(group, 8.0)
    assert probe.right(seen, group).mean() > 0.98
    label_swapped = (group + 2) % 4
    assert probe.right(seen, label_swapped).mean(axis=0) == pytest.approx([0, 1], abs=0.05)


def test_cross_fitted_accuracies_are_of_images_not_seen():
    """A head of 48 numbers knows 80 images by heart: where they say nothing, half is right."""
    group, rng = np.repeat(np.arange(4), 20), np.random.default_rng(0)
    noise = features(group, 0.0)
    assert fit_probe(noise, group, GROUPS).right(noise, group).mean() > 0.8
    assert cross_fitted(noise, group, GROUPS, rng).mean() == pytest.approx(0.5, abs=0.15)
    assert cross_fitted(features(group, 8.0), group, GROUPS, rng).mean() > 0.9


def test_labels_are_told_apart_where_there_is_something_to_tell():
    label, rng = np.repeat([0, 1, 2], 40), np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    assert told_apart(torch.from_numpy(x), label, 3, rng) == pytest.approx(1 / 3, abs=0.15)
    x[:, 4] += 6 * label
    assert told_apart(torch.from_numpy(x), label, 3, rng) > 0.95
