"""The losses of images whose attribute is not known, and what mean errors are divided by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.grouping.mixture import (
    TEMPERATURES,
    classification_losses,
    elbo_temperature,
    likeliest_temperature,
    mixture_losses,
)
from raysynth.groups.balance import image_weights


def drawn():
    """said [3, 2, 1, 2, 2] with gradient, plain and target [3, 1, 2, 2], posterior [3, 2]."""
    dice = torch.Generator().manual_seed(0)
    said = torch.randn(3, 2, 1, 2, 2, generator=dice).requires_grad_()
    plain = torch.randn(3, 1, 2, 2, generator=dice).requires_grad_()
    target = torch.randn(3, 1, 2, 2, generator=dice)
    return said, plain, target, torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.0, 1.0]])


def test_sure_images_are_learnt_under_the_mixture_and_others_without_attribute():
    said, plain, target, posterior = drawn()
    sure = torch.tensor([True, False, True])
    found = mixture_losses(said, plain, target, posterior, sure)
    mixed = 0.95 * said[0, 0] + 0.05 * said[0, 1]
    assert torch.allclose(found[0], (mixed - target[0]).square().mean())
    assert torch.allclose(found[1], (plain[1] - target[1]).square().mean())
    assert torch.allclose(found[2], (said[2, 1] - target[2]).square().mean())
    found.sum().backward()
    assert said.grad[1].abs().sum() == 0 and plain.grad[[0, 2]].abs().sum() == 0
    assert plain.grad[1].abs().sum() > 0 and said.grad[2, 0].abs().sum() == 0
    assert torch.allclose(19 * said.grad[0, 1], said.grad[0, 0], atol=1e-6)  # as the shares are


def test_classification_is_cross_entropy_of_the_errors_against_the_posterior():
    said, _, target, posterior = drawn()
    sure = torch.tensor([True, False, True])
    found = classification_losses(said, target, posterior, 0.5, sure)
    errors = (said - target[:, None]).square().mean((2, 3, 4))
    expected = F.cross_entropy(-errors / 0.5, posterior, reduction="none")
    assert torch.allclose(found[[0, 2]], expected[[0, 2]]) and found[1] == 0
    found[2].backward()  # moves towards the attribute that the posterior says, from the other
    step = (said - 0.01 * said.grad).detach()
    less, more = ((s[2] - target[2]).square().mean((1, 2, 3)) for s in (step, said))
    assert less[1] < more[1] and less[0] > more[0]


def test_the_lower_bounds_temperature_gives_its_posterior():
    clean, means = torch.zeros(1, 4, 16, 16), torch.tensor([0.001, 0.004])
    sums = means * clean.numel() / 2  # -log p, up to a constant
    assert torch.allclose((-means / elbo_temperature(clean.numel())).softmax(0), (-sums).softmax(0))


def test_the_likeliest_temperature_is_the_one_that_made_the_attributes():
    dice = torch.Generator().manual_seed(0)
    true = TEMPERATURES[3]
    errors = 0.01 * torch.randn(20000, 2, generator=dice)
    drawn = torch.rand(20000, generator=dice) < (-errors / true).softmax(1)[:, 1]
    group = (torch.rand(20000, generator=dice) < 0.1).long()
    assert likeliest_temperature(errors, drawn.long(), group) == true


def test_every_group_weighs_alike():
    weight = image_weights(np.array([3, 0, 3, 3]), "balanced")
    assert weight.sum() == pytest.approx(1) and weight[1] == pytest.approx(0.5)
