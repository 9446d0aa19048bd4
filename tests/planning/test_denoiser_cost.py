"""Costs from shapes alone agree with what is counted on a real network."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from raysynth.adapters.grouped_lora import inject
from raysynth.models.family import FAMILIES, USUAL, layers_of
from raysynth.models.sources import resolve
from raysynth.planning.denoiser_cost import unet_cost
from raysynth.planning.network_cost import UNetCost

TARGETS = ("attention", "feed_forward")
FAMILY = FAMILIES[USUAL]
LAYERS = layers_of(FAMILY, TARGETS)
TOKENS = FAMILY.published.shape.tokens


def cost_of(shape, targets, rank: int, checkpointing: bool) -> UNetCost:
    return unet_cost(shape, targets, rank, checkpointing, TOKENS, FAMILY)


def tiny_shape():
    with open(f"{resolve('embedded')}/unet/config.json") as file:
        return json.load(file)


def test_parameters_are_those_of_the_real_network():
    cost = cost_of(tiny_shape(), TARGETS, rank=8, checkpointing=False)
    unet = UNet2DConditionModel.from_pretrained(resolve("embedded"), subfolder="unet")
    assert cost.parameters == sum(p.numel() for p in unet.parameters())
    lora = inject(unet, LAYERS, 8, 8.0, 1)
    assert cost.trained == sum(p.numel() for p in lora.parameters())
    assert cost_of(tiny_shape(), None, 8, False).trained == cost.parameters


def test_flops_are_those_of_a_counted_forward_pass():
    cost = cost_of(tiny_shape(), TARGETS, rank=8, checkpointing=False)
    unet = UNet2DConditionModel.from_pretrained(resolve("embedded"), subfolder="unet")
    inject(unet, LAYERS, 8, 8.0, 1).route([0])
    x = torch.zeros(1, unet.config.in_channels, 8, 8)
    with (
        torch.no_grad(),
        torch.utils.flop_counter.FlopCounterMode(display=False) as counter,
    ):
        unet(x, 1, torch.zeros(1, TOKENS, unet.config.cross_attention_dim))
    assert cost.forward == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert 1.5 < cost.training / cost.forward < 3.2


def test_stable_diffusion_has_its_published_size_and_checkpointing_saves():
    plain = cost_of(FAMILY.published.network, TARGETS, 16, checkpointing=False)
    saved = cost_of(FAMILY.published.network, TARGETS, 16, checkpointing=True)
    assert plain.parameters == 859_520_964  # Stable Diffusion 1.5's published UNet
    assert saved.activations < plain.activations / 3
    assert saved.training > plain.training + 0.7 * plain.forward
