"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from raysynth.training.losses import GroupDRO, mixed_loss, supervised_contrastive


def test_supcon_by_hand():
    # Unit vectors e1, e1, e2 with labels 0, 0, 1 at temperature 1. Anchor 1: positive 2 with
    # similarity 1, the other has 0: -log(e / (e + 1)); anchor 2 alike; anchor 3 has no positive.
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    loss = supervised_contrastive(features, torch.tensor([0, 0, 1]), 1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)), rel=1e-6)


def test_supcon_averages_over_the_positives_outside_the_logarithm():
    # Equation 2 (L_out): anchor e1 has positives at similarities 1 and 0, one negative at -1.
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    t = 0.5
    whole = math.exp(1 / t) + math.exp(0) + math.exp(-1 / t)
    first = -(math.log(math.exp(1 / t) / whole) + math.log(1 / whole)) / 2
    around = 1 + 1 + 1  # anchor 3: all three others have similarity 0
    third = -math.log(1 / around)
    expected = (first + first + third) / 3
    loss = supervised_contrastive(features, torch.tensor([0, 0, 0, 1]), t)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_supcon_without_any_positive_is_zero_with_finite_gradient():
    features = torch.randn(3, 4, requires_grad=True)
    loss = supervised_contrastive(features, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert features.grad is not None and features.grad.isfinite().all()


def test_mixed_loss_weighs_its_parts():
    features, logits = torch.randn(8, 4), torch.randn(8, 2)
    label = torch.tensor([0, 1] * 4)
    ce = F.cross_entropy(logits, label)
    supcon = supervised_contrastive(features, label, 0.2)
    assert torch.allclose(mixed_loss(logits, features, label, 1.0, 0.2), ce)
    assert torch.allclose(mixed_loss(logits, features, label, 0.0, 0.2), supcon)
    assert torch.allclose(mixed_loss(logits, features, label, 0.3, 0.2), 0.3 * ce + 0.7 * supcon)


def test_group_dro_by_hand():
    # Losses: group 0 has log 2 twice, group 1 has log 4 once, group 2 is absent.
    logits = torch.log(torch.tensor([[1.0, 1.0], [1.0, 1.0], [3.0, 1.0]]))
    robust = GroupDRO(3, step_size=1.0)
    loss = robust(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    raw = torch.tensor([2.0, 4.0, 1.0])  # 1/3 * exp(loss), up to the common factor
    expected = raw / raw.sum()
    assert torch.allclose(robust.weights, expected, atol=1e-6)
    assert loss.item() == pytest.approx(
        (expected[0] * math.log(2) + expected[1] * math.log(4)).item(), rel=1e-5
    )


def test_group_dro_weights_move_to_the_worst_group():
    robust = GroupDRO(2, step_size=0.1)
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    for _ in range(20):
        robust(logits, torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert robust.weights[1] > 0.9
    assert robust.weights.sum().item() == pytest.approx(1.0)
