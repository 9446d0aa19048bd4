"""Folding normalisations changes how fast a network is evaluated, not what it says."""

from __future__ import annotations

import copy

import torch

from raysynth.networks.folded import Folded
from raysynth.networks.network import build_network
from raysynth.networks.small import SmallNetwork
from tests.training.tiny import SIDE, tiny_blueprint, tiny_data, tiny_groups


def trained() -> SmallNetwork:
    """Random weights, and normalisations as if it had been trained."""
    torch.manual_seed(0)
    model = SmallNetwork((8, 16), 3, 2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
    return model.eval()


def features(model: SmallNetwork, x: torch.Tensor) -> torch.Tensor:
    model = copy.deepcopy(model).to(x.dtype)
    model.classifier = torch.nn.Identity()
    return model(x)


def test_features_are_those_of_the_network_in_evaluation():
    model, x = trained().double(), torch.randn(5, 3, 20, 20, dtype=torch.float64)
    found = Folded(model, torch.float64)(x)
    torch.testing.assert_close(found, features(model, x), rtol=1e-10, atol=1e-10)


def test_in_bfloat16_it_is_as_near_to_float32_as_the_network_is():
    model, x = trained(), torch.randn(64, 3, 20, 20)
    exact = features(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        unfolded = features(model, x).float()
    folded = Folded(model, torch.bfloat16)(x.bfloat16()).float()
    assert (folded - exact).abs().mean() < 1.5 * (unfolded - exact).abs().mean()


def test_a_network_evaluates_as_its_weights_are_now():
    network = build_network(tiny_blueprint(), tiny_groups(), SIDE, 0)
    images = tiny_data().validation
    for _ in range(2):
        found, logits = network.outputs(images)
        network.model.eval()
        with torch.no_grad():
            expected = network(torch.from_numpy(images.pixels))
        torch.testing.assert_close((found, logits), expected, rtol=1e-4, atol=1e-4)
        network.model.train()(torch.randn(8, 3, SIDE, SIDE))  # moves the running statistics
        network.model.stem.weight.data.mul_(1.5)
