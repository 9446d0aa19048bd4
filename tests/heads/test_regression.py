"""The linear head of stage 2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.groups.balance import image_weights
from raysynth.heads.regression import fit_heads, fit_robust_heads


def slopes(features, label, weights, decay: float, head) -> torch.Tensor:
    """Largest gradient entry of the objective in float64, on standardised features."""
    mean, scale = features.mean(dim=0), features.std(dim=0)
    weight = (head.weight * scale).double().requires_grad_()
    bias = (head.bias + head.weight @ mean).double().requires_grad_()
    x = ((features - mean) / scale).double()
    each = F.cross_entropy(x @ weight.T + bias, torch.tensor(label), reduction="none")
    loss = (torch.tensor(weights) * each).sum() + decay / 2 * weight.square().sum()
    return max(g.abs().max() for g in torch.autograd.grad(loss, [weight, bias]))


@pytest.mark.parametrize("classes", [2, 3])
def test_every_head_is_at_the_minimum_of_its_objective(classes):
    torch.manual_seed(0)
    features = torch.randn(200, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3
    label = (
        (features[:, 0] + torch.randn(200) > 3).long() + torch.arange(200) % (classes - 1)
    ).numpy()
    weights = image_weights(label, "balanced")
    decays = [1e-3, 0.05, 1.0]
    heads = fit_heads(features, label, weights, decays, classes)
    for decay, head in zip(decays, heads, strict=True):
        assert slopes(features, label, weights, decay, head) < 1e-5


def test_heads_are_scikit_learns_logistic_regressions():
    """Of mean cross-entropy and decay / 2 * ||W||^2, C is 1 / (N * decay)."""
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    label = np.arange(150) % 3
    features = torch.randn(150, 6) * torch.linspace(0.5, 3, 6) + torch.tensor(np.eye(3, 6)[label])
    features = features.float()
    x = ((features - features.mean(dim=0)) / features.std(dim=0)).double().numpy()
    decays = [0.01, 0.3]
    heads = fit_heads(features, label, image_weights(label, "erm"), decays, 3)
    for decay, head in zip(decays, heads, strict=True):
        peer = LogisticRegression(C=1 / (len(label) * decay), tol=1e-8, max_iter=1000)
        logs = peer.fit(x, label).predict_log_proba(x)
        ours = (features @ head.weight.T + head.bias).log_softmax(dim=1)
        np.testing.assert_allclose(ours.numpy(), logs, atol=1e-3)


def test_features_that_are_zero_for_every_image_change_nothing():
    """Hundreds of them, as of a network that sees little: torch gives up in single precision."""
    torch.manual_seed(0)
    label = np.arange(200) % 2
    live = torch.randn(200, 240) + 0.3 * torch.tensor(label)[:, None]
    places = torch.randperm(640)[:240].sort().values
    features = torch.zeros(200, 640)
    features[:, places] = live
    weights = image_weights(label, "balanced")
    (whole,) = fit_heads(features, label, weights, [0.3], 2)
    (alone,) = fit_heads(live, label, weights, [0.3], 2)
    torch.testing.assert_close(whole.weight[:, places], alone.weight, atol=1e-3, rtol=1e-2)
    dead = torch.ones(640, dtype=torch.bool)
    dead[places] = False
    assert whole.weight.isfinite().all() and float(whole.weight[:, dead].abs().max()) < 1e-3


def test_a_head_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    features, label = torch.randn(300, 8), np.arange(300) % 2
    weights = image_weights(label, "erm")
    decays = [1e-3, 1e-2, 0.1, 1.0, 10.0]
    together = fit_heads(features, label, weights, decays, 2)
    for decay, head in zip(decays, together, strict=True):
        (alone,) = fit_heads(features, label, weights, [decay], 2)
        torch.testing.assert_close(head.weight, alone.weight, rtol=1e-3, atol=1e-5)


def test_more_dimensions_than_images_and_constant_features():
    features = torch.cat([torch.randn(20, 40), torch.ones(20, 3)], dim=1)
    label = np.arange(20) % 2
    weights = image_weights(label, "erm")
    (head,) = fit_heads(features, label, weights, [1e-2], 2)
    assert head.weight.isfinite().all()
    assert (head.predict(features) == label).mean() == 1.0


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
        (head,) = fit_heads(features, label, image_weights(group, objective), [1e-3], 2)
        right = head.predict(features) == label
        accuracy[objective] = min(right[group == g].mean() for g in range(4))
    assert accuracy["balanced"] > accuracy["erm"] + 0.3


@pytest.mark.parametrize("classes", [2, 3])
def test_read_only_inputs_and_any_number_of_classes(classes):
    features = torch.randn(60, 4)
    label = np.arange(60) % classes
    label.flags.writeable = False
    (head,) = fit_heads(features, label, image_weights(label, "balanced"), [0.1], classes)
    assert head.weight.shape == (classes, 4)
    assert head.predict(features).shape == (60,)


def test_robust_heads_lower_the_worst_groups_loss():
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1, 2], [300, 60, 20])
    label = (rng.random(380) < 0.5).astype(int)
    features = torch.tensor(rng.normal(size=(380, 4)), dtype=torch.float32)
    features[:, 0] += torch.tensor(np.where(group == 0, 3 * label, -2 * label))  # groups disagree
    worst = {}
    for name, (head,) in (
        ("robust", fit_robust_heads(features, label, group, [1e-2], 2)),
        ("balanced", fit_heads(features, label, image_weights(group, "balanced"), [1e-2], 2)),
    ):
        logits = features @ head.weight.T + head.bias
        each = F.cross_entropy(logits, torch.tensor(label), reduction="none").numpy()
        worst[name] = [each[group == g].mean() for g in range(3)]
    assert max(worst["robust"]) < max(worst["balanced"]) - 0.01
    assert np.ptp(worst["robust"]) < np.ptp(worst["balanced"])


def test_robust_heads_of_several_decays_do_not_depend_on_each_other():
    torch.manual_seed(0)
    features, label = torch.randn(200, 6), np.arange(200) % 3
    group = np.arange(200) % 4
    together = fit_robust_heads(features, label, group, [1e-2, 0.1, 1.0], 3)
    (alone,) = fit_robust_heads(features, label, group, [0.1], 3)
    torch.testing.assert_close(together[1].weight, alone.weight, rtol=2e-2, atol=2e-4)
