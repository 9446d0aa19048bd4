"""What a phase trains on, counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raysynth.groups.balance import balanced_subset, fill_counts, image_weights
from raysynth.training.plan import Phase
from raysynth.training.trainset import mixture_counts, training_set
from tests.training.tiny import tiny_data, tiny_groups, tiny_images

REAL = Phase("real", 10, 1e-3, 0.0)
# Training images of FFR's UTKFace and CelebA-HQ splits, and the images per group that FFR's step 1
# and ASB take (arXiv 2308.04553; counts read from its split files).
PUBLISHED = [
    ((103, 934, 5731, 636), 3880),
    ((50, 934, 5731, 302), 3976),
    ((29, 934, 5731, 178), 4013),
    ((10, 934, 5731, 58), 4047),
    ((1, 934, 5731, 6), 4063),
    ((592, 5335, 7797, 866), 4149),
    ((54, 5335, 7797, 79), 4480),
    ((6, 5335, 7797, 8), 4510),
    ((10000, 500, 10000, 500, 10000, 500, 10000, 500), 4750),
]


@pytest.mark.parametrize(("sizes", "each"), PUBLISHED)
def test_fill_counts_are_the_published_ones(sizes, each):
    sizes = np.array(sizes)
    assert set(fill_counts("asb", sizes)) == {each}
    assert (sizes + fill_counts("usb", sizes)).tolist() == [sizes.max()] * len(sizes)


def test_ratio_decides_how_many_synthetic_images():
    data = tiny_data()
    half = training_set(replace(REAL, images="synthetic", ratio=0.5), data, 0)
    assert half.parts == (data.synthetic,)
    assert np.bincount(half.group).tolist() == [7, 7, 7, 7]  # 0.5 * 56 real images
    all_there = training_set(replace(REAL, images="synthetic", ratio=9.0), data, 0)
    assert np.bincount(all_there.group).tolist() == [10] * 4
    whole = training_set(REAL, data, 0)
    assert whole.parts == (data.train,) and len(whole.rows) == 56


@pytest.mark.parametrize("images", ["synthetic", "joint"])
def test_a_ratio_of_hardly_anything_takes_one_image_of_each_group(images):
    data = tiny_data()
    few = training_set(replace(REAL, images=images, ratio=0.01), data, 0)  # 0.56 images
    assert len(set(few.rows) - set(range(len(data.train)) if images == "joint" else ())) == 4
    assert len(next(few.batches(16, 0, 0))) > 0


def test_balanced_data_ask_ffr_for_one_image_of_each_group():
    even = replace(tiny_data(), train=tiny_images([5] * 4, tiny_groups(), 1))
    first = training_set(replace(REAL, images="synthetic_fill"), even, 0)
    assert np.bincount(first.group).tolist() == [1, 1, 1, 1]
    assert mixture_counts("synthetic_fill", even) == (4, 4)
    assert mixture_counts("usb", even) == (0, 0)


def test_subset_has_the_smallest_groups_size():
    subset = training_set(replace(REAL, images="real_subset"), tiny_data(), 3)
    assert np.bincount(subset.group).tolist() == [4, 4, 4, 4]
    assert len(set(subset.rows.tolist())) == 16
    other = training_set(replace(REAL, images="real_subset"), tiny_data(), 4)
    assert set(subset.rows) != set(other.rows)
    rows = balanced_subset(np.array([0, 0, 0, 1, 1, 3, 3]), 0)  # group 2 is empty
    assert len(rows) == 6 and (rows[2:] == [3, 4, 5, 6]).all()


def test_errors_are_repeated_and_all_else_stays():
    data = tiny_data()
    predicted = data.train.label.copy()
    wrong = [0, 25, 55]
    predicted[wrong] = 1 - predicted[wrong]
    found = training_set(replace(REAL, images="real_errors", upweight=50), data, 0, predicted)
    times = np.bincount(found.rows)
    assert times[wrong].tolist() == [50, 50, 50] and times.sum() == 53 + 150


def test_mixtures_add_what_their_paper_says():
    groups = tiny_groups()
    data = tiny_data()
    rich = replace(data, synthetic=tiny_images([40] * 4, groups, 9))
    usb = training_set(replace(REAL, images="usb"), rich, 0)
    assert np.bincount(usb.group).tolist() == [24, 24, 24, 24]
    asb = training_set(replace(REAL, images="asb"), rich, 0)
    assert np.bincount(asb.group).tolist() == [34, 14, 14, 34]  # 40 in all, ten to each group
    fill = training_set(replace(REAL, images="synthetic_fill"), rich, 0)
    assert np.bincount(fill.group).tolist() == [10] * 4 and fill.parts == (rich.synthetic,)
    poor = training_set(replace(REAL, images="usb"), data, 0)
    assert np.bincount(poor.group).tolist() == [24, 14, 14, 24]  # as many as there are
    assert mixture_counts("usb", data) == (40, 20) and mixture_counts("usb", rich) == (40, 40)
    assert mixture_counts("synthetic_fill", data) == (40, 40)


def test_pixels_of_two_parts_are_their_own():
    data = tiny_data()
    mixed = training_set(replace(REAL, images="asb"), data, 0)
    chosen = np.array([0, 60, 5, 70])
    pixels = mixed.pixels(chosen)
    np.testing.assert_array_equal(pixels[0], data.train.pixels[0])
    np.testing.assert_array_equal(pixels[1], data.synthetic.pixels[mixed.rows[60] - 56])
    assert mixed.label[60] == data.synthetic.label[mixed.rows[60] - 56]


def test_joint_loss_is_lambda_times_real_plus_the_rest_synthetic():
    data = tiny_data()
    phase = replace(REAL, images="joint", ratio=0.5, sampling="balanced", real_share=0.8)
    joint = training_set(phase, data, 0)
    real = joint.rows < 56
    share = joint.probability * joint.weight
    assert share[real].sum() == pytest.approx(0.8) and share[~real].sum() == pytest.approx(0.2)
    assert joint.probability[real].sum() == pytest.approx(0.5)
    by_group = np.bincount(joint.group[real], weights=joint.probability[real])
    np.testing.assert_allclose(by_group, 0.125)


def test_joint_means_hold_in_every_batch():
    data = tiny_data()
    phase = replace(
        REAL, images="joint", ratio=0.5, sampling="balanced", real_share=0.8, joint_means=True
    )
    joint = training_set(phase, data, 0)
    batches, drawn = joint.batches(16, 0, 0), []
    for _ in range(60):
        rows = next(batches)
        real = rows < 56
        assert real.sum() == 8 == len(rows) / 2
        loss = np.arange(16.0) ** 2  # of any values: lambda * mean over real + (1-lambda) * others
        expected = 0.8 * loss[real].mean() + 0.2 * loss[~real].mean()
        assert (joint.weight[rows] * loss).mean() == pytest.approx(expected)
        drawn.append(rows)
    seen = np.concatenate(drawn)
    for kind in (seen[seen < 56], seen[seen >= 56]):  # each half group-balanced
        np.testing.assert_allclose(np.bincount(joint.group[kind]) / len(kind), 0.25, atol=0.07)
    assert not training_set(replace(phase, joint_means=False), data, 0).halves


def test_reweighting_weighs_groups_alike():
    found = training_set(replace(REAL, reweighted=True), tiny_data(), 0)
    assert found.probability is None and found.weight.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(found.group, weights=found.weight), 14, rtol=1e-6)


def test_uniform_batches_are_epochs_and_balanced_ones_even_out_groups():
    data = tiny_data()
    uniform = training_set(REAL, data, 0).batches(14, 0, 0)
    epoch = np.concatenate([next(uniform) for _ in range(4)])
    assert sorted(epoch.tolist()) == list(range(56))
    balanced = training_set(replace(REAL, sampling="balanced"), data, 0)
    batches = balanced.batches(40, 0, 0)
    drawn = balanced.group[np.concatenate([next(batches) for _ in range(50)])]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 0.25, atol=0.04)


def test_weights_of_the_two_objectives():
    group = np.array([0, 0, 0, 2])  # group 1 is empty
    np.testing.assert_allclose(image_weights(group, "erm"), [0.25] * 4)
    np.testing.assert_allclose(image_weights(group, "balanced"), [1 / 6] * 3 + [1 / 2])
