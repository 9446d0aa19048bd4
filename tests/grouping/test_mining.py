"""The pure numbers of conflict mining: odds, the two sides of a class, and their words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.grouping.mining import log_odds, mine, otsu_count, two_words
from raysynth.training.losses import generalised_cross_entropy


def test_log_odds_are_in_the_order_of_cross_entropy_and_do_not_saturate():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 3, (50, 4)), rng.integers(0, 4, 50)
    p = torch.from_numpy(logits).softmax(1)[torch.arange(50), torch.from_numpy(label)].numpy()
    assert np.allclose(log_odds(logits, label), np.log((1 - p) / p))
    far = log_odds(np.array([[500.0, 0.0], [400.0, 0.0], [0.0, 400.0]]), np.zeros(3, int))
    assert far.tolist() == [-500.0, -400.0, 400.0]


def test_otsu_finds_the_few_that_lie_apart_within_its_bounds():
    values = np.concatenate([np.linspace(0.0, 0.1, 200), np.linspace(0.9, 1.0, 7)])
    rng = np.random.default_rng(0)
    assert otsu_count(rng.permutation(values), 2, 40) == 7
    assert otsu_count(values, 10, 40) == 10 and otsu_count(values, 2, 5) == 5
    assert otsu_count(values, 10, 3) == 10  # a class too small for its share


def separated_classes():
    """Two classes of 300 and 500 images, of which 10 and 50 go against the bias."""
    rng = np.random.default_rng(0)
    sizes = ((290, -5), (10, 4), (450, -7), (50, 5))
    odds = np.concatenate([rng.normal(mean, 1, count) for count, mean in sizes])
    label, conflict = np.repeat([0, 1], (300, 500)), np.repeat([0, 1, 0, 1], (290, 10, 450, 50))
    order = rng.permutation(800)
    return odds[order], label[order], conflict[order].astype(bool)


def test_both_sides_of_every_class_are_found_and_how_sure_they_are():
    odds, label, conflict = separated_classes()
    sides = mine(odds, label, None, 5, 0.2)
    assert np.array_equal(sides.conflicts(odds, label), conflict)
    assert np.allclose(sides.conflict, [10 / 300, 50 / 500])
    found = sides.posterior(odds, label)
    assert (found[conflict] > 0.9).mean() > 0.95 and (found[~conflict] < 0.1).all()
    for y in (0, 1):  # what is misread more is never less sure
        order = np.argsort(odds[label == y])
        assert (np.diff(found[label == y][order]) >= 0).all()
    # Where both sides are as likely: the middle, moved by their shares.
    middle = (sides.aligned_mean + sides.conflicting_mean) / 2
    even = middle - np.log(sides.conflict / (1 - sides.conflict)) * sides.spread**2 / (
        sides.conflicting_mean - sides.aligned_mean
    )
    assert np.allclose(sides.posterior(even, np.array([0, 1])), 0.5)


def test_a_number_may_be_given():
    odds, label, conflict = separated_classes()
    found = mine(odds, label, 30, 5, 0.2).conflicts(odds, label)
    assert [found[label == y].sum() for y in (0, 1)] == [30, 30]
    assert found[conflict & (label == 0)].all() and conflict[found & (label == 1)].all()
    assert mine(odds, label, 400, 5, 0.2).conflicts(odds, label)[label == 0].sum() == 295


@pytest.mark.parametrize("first_shows", [0, 2])
def test_two_words_say_what_the_sides_show_and_which_is_which(first_shows):
    similar = np.full((2, 3, 4), 0.2)  # [aligned or conflicting, class, word]
    similar[:, :, 1] += 0.05  # a word for all images says nothing of the sides
    for y, aligned in enumerate((first_shows, 2 - first_shows, first_shows)):
        similar[0, y, aligned] += 0.1
        similar[1, y, 2 - aligned] += 0.1
    first, second, shows_second = two_words(*similar)
    assert (first, second) == (first_shows, 2 - first_shows)
    assert shows_second.tolist() == [False, True, False]


def test_generalised_cross_entropy_has_the_published_gradient():
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    q = 0.7
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = generalised_cross_entropy(one, label, q)
    ours.sum().backward()
    p = other.softmax(1)[torch.arange(6), label]
    ((1 - p**q) / q).sum().backward()
    assert torch.allclose(one.grad, q * other.grad, atol=1e-6)
    each = F.cross_entropy(logits, label, reduction="none")
    assert torch.allclose(ours, (q * p.detach() ** q * each).float(), atol=1e-6)
