"""The cost of an adapted text encoder agrees with what is counted on a real one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raysynth.adapters.grouped_lora import inject
from raysynth.config.files import load_config
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import layers_of
from raysynth.planning import costs, sizes
from tests.planning.test_costs import IMAGES

RANK = 8
TUNED = ["generator=lora", "base.dtype=float32", "base.attention=plain"]


def counted(text: bool) -> tuple[float, float, int]:
    """FLOPs of a forward pass and of a step, and trained numbers, of the embedded base."""
    config = load_config(None, TUNED)
    base = replace(load_base(config.base, ("model", "text", "scheduler")), live=text)
    targets = layers_of(base.family, config.finetune.targets)
    targets |= base.family.text_targets if text else {}
    network, prefix = base.network, "" if text else "unet."
    lora = inject(network, targets, RANK, 8.0, 1, prefix)
    lora.route([0])
    told = base.condition(["a photo of a coat on grass"])
    with FlopCounterMode(display=False) as counter:
        said = Denoiser(base, network)(torch.zeros(1, *base.latent_shape), torch.ones(1), told).raw
        forward = counter.get_total_flops()
        said.square().mean().backward()
    trained = sum(matrix.numel() for matrix in lora.parameters())
    return forward, counter.get_total_flops(), trained


def test_a_step_reads_its_prompts_too():
    plain, live = counted(False), counted(True)
    config = load_config(None, [*TUNED, "finetune.text_encoder=true"])
    without = load_config(None, TUNED)
    training, shape = recipe_of(config).training, sizes.base_shape(config, [])
    cost = costs.training_cost(training, config.finetune, shape)
    known = costs.training_cost(training, without.finetune, shape)
    assert cost.trained - known.trained == live[2] - plain[2] > 0
    assert cost.forward - known.forward == pytest.approx(live[0] - plain[0], rel=0.02)
    # The network's own keys and values of the states are left out: a few parts in a thousand.
    assert cost.training - known.training == pytest.approx(live[1] - plain[1], rel=0.25)
    assert cost.training == pytest.approx(live[1] * known.training / plain[1], rel=0.02)
    assert cost.activations > known.activations
    drawn = [
        costs.generation_flops(recipe_of(one), one, shape, IMAGES) for one in (without, config)
    ]
    assert 1 < drawn[1] / drawn[0] < 1.3
