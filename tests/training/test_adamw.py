"""AdamW without torch's class: the same steps, and no compiler imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from raysynth.training.adamw import MAX_GRAD_NORM, AdamW, rate_factor

RATE, DECAY, STEPS = 3e-2, 0.3, 10


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def losses(model: nn.Module):
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for step in range(STEPS):
        yield 40 * model(images + step).square().mean()  # clipped at first


def test_the_steps_are_those_of_torchs_class_bit_for_bit():
    ours, theirs = layers(), layers()
    optimizer = AdamW(ours, RATE, DECAY, STEPS)
    for loss in losses(ours):
        optimizer.step(loss)
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    vectors = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0}]
    known = torch.optim.AdamW(groups, lr=RATE, fused=True)
    for step, loss in enumerate(losses(theirs)):
        known.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), MAX_GRAD_NORM)
        for group in known.param_groups:
            group["lr"] = RATE * rate_factor(step, STEPS)
        known.step()
    assert all(
        torch.equal(one, other)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


def test_a_parameter_without_a_gradient_stays():
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    before = model[1].weight.detach().clone()
    AdamW(model, RATE, DECAY, STEPS).step(model[0](torch.ones(1, 2)).sum())
    assert torch.equal(model[1].weight, before)
    assert model[0].weight.grad is not None


def test_the_rate_rises_then_falls_to_nothing():
    factors = [rate_factor(step, STEPS) for step in range(STEPS + 1)]
    assert factors[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.0)


def test_a_training_process_of_the_small_network_never_imports_torchs_compiler():
    code = (
        "import sys\n"
        "from raysynth.training.fit import fit\n"
        "from tests.training.test_fit import plan\n"
        "from tests.training.tiny import tiny_blueprint, tiny_data\n"
        "steps = [each.step for each in fit(plan(), tiny_data(), tiny_blueprint())]\n"
        "print(steps, 'torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[6, 12] False False"
