"""The linear head of stage 2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.classify.head import fit_head, image_weights


def test_weights_of_the_two_objectives():
    group = np.array([0, 0, 0, 2])  # group 1 is empty
    np.testing.assert_allclose(image_weights(group, "erm"), [0.25] * 4)
    np.testing.assert_allclose(image_weights(group, "balanced"), [1 / 6] * 3 + [1 / 2])


def test_the_head_is_at_the_minimum_of_its_objective():
    torch.manual_seed(0)
    features = torch.randn(200, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3
    label = (features[:, 0] + torch.randn(200) > 3).long()
    weights = np.full(200, 1 / 200)
    head = fit_head(features, label.numpy(), weights, 0.05, 2)
    mean, scale = features.mean(dim=0), features.std(dim=0)
    weight = (head.weight * scale).double().requires_grad_()
    bias = (head.bias + head.weight @ mean).double().requires_grad_()
    x = ((features - mean) / scale).double()
    loss = F.cross_entropy(x @ weight.T + bias, label) + 0.025 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None and weight.grad.abs().max() < 1e-4
    assert bias.grad is not None and bias.grad.abs().max() < 1e-4


def test_balanced_head_recovers_a_small_group():
    # The attribute (column 1) is louder than the label (column 0), and agrees for 98 %.
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    attribute = np.where(np.arange(2000) < 40, 1 - label, label)
    noise = rng.normal(size=(2000, 2))
    features = torch.tensor(
        np.stack([label * 2 + noise[:, 0], attribute * 2 + 0.3 * noise[:, 1]], 1),
        dtype=torch.float32,
    )
    group = label * 2 + attribute
    accuracy = {}
    for objective in ("erm", "balanced"):
        head = fit_head(features, label, image_weights(group, objective), 1e-3, 2)
        right = head.predict(features) == label
        accuracy[objective] = min(right[group == g].mean() for g in range(4))
    assert accuracy["balanced"] > accuracy["erm"] + 0.3


@pytest.mark.parametrize("classes", [2, 3])
def test_read_only_inputs_and_any_number_of_classes(classes):
    features = torch.randn(60, 4)
    label = np.arange(60) % classes
    label.flags.writeable = False
    head = fit_head(features, label, image_weights(label, "balanced"), 0.1, classes)
    assert head.weight.shape == (classes, 4)
    assert head.predict(features).shape == (60,)
