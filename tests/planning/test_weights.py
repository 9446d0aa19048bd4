"""Bytes of a quantised base: as many as are kept when it is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raysynth.config.config import Config
from raysynth.finetune.settings import FinetuneConfig
from raysynth.models.base import load_base
from raysynth.models.quantised import QuantisedLinear, kept_bytes
from raysynth.planning import costs, sizes
from raysynth.planning.matrices import spared_of_texts
from raysynth.planning.network_cost import UNetCost
from raysynth.planning.weights import MADE, held_bytes, network_bytes
from tests.models.random_families import WRITERS, write_family


@pytest.mark.parametrize("name", list(WRITERS))
def test_planned_bytes_are_those_that_are_kept(tmp_path, name):
    torch.set_num_threads(1)
    folder = write_family(name, tmp_path / name)
    base = {"name": str(folder), "device": "cpu", "dtype": "float32", "quantization": "int8"}
    config = Config.model_validate({"base": base})
    shape = sizes.base_shape(config, said := [])
    assert not said
    loaded = load_base(config.base)
    network = loaded.model.to(torch.bfloat16)  # two bytes for what is no linear layer
    plain = load_base(config.base.model_copy(update={"quantization": "none"}))
    numbers = sum(parameter.numel() for parameter in plain.model.parameters())
    cost = UNetCost(numbers, 0, 0.0, 0.0, 0.0)
    assert network_bytes(config.base, cost, shape) == kept_bytes(network)
    spared = spared_of_texts(config.base, loaded.family, folder)
    parts = [p for p in loaded.family.roles["text"] if "tokenizer" not in p]
    kept = [sum(kept_bytes(b.parts[p]) for p in parts) for b in (plain, loaded)]
    assert spared == kept[0] - kept[1]
    matrices = [m.packed for m in network.modules() if isinstance(m, QuantisedLinear)]
    largest = max(packed.dense(torch.float32).numel() for packed in matrices)
    training = costs.LORA
    held = held_bytes(config.base, training, FinetuneConfig(), cost, shape)
    assert held == shape.encoders + kept_bytes(network) + MADE * largest
    full = held_bytes(config.base, replace(training, engine="full"), FinetuneConfig(), cost, shape)
    assert full == shape.encoders


def test_nothing_changes_where_nothing_is_quantised():
    config = Config()
    shape, cost = sizes.base_shape(config, []), UNetCost(1000, 0, 0.0, 0.0, 0.0)
    assert network_bytes(config.base, cost, shape) == 2000
    held = held_bytes(config.base, costs.LORA, FinetuneConfig(), cost, shape)
    assert held == shape.encoders + 2000


def test_what_the_hub_has_is_counted_by_its_familys_usual_network():
    said: list[str] = []
    base = {"name": "tongyi-mai/z-image", "quantization": "nf4"}
    config = Config.model_validate({"base": base})
    shape = sizes.base_shape(config, said)
    assert any("counted whole" in each for each in said)
    cost = UNetCost(6_150_000_000, 0, 0.0, 0.0, 0.0)
    found = network_bytes(config.base, cost, shape)
    assert 0.25 < found / (2 * cost.parameters) < 0.27
