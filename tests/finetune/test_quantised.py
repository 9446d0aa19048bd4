"""Adapters on a quantised base: those of a base with the same numbers, alone and packed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raysynth.errors import ConfigError
from raysynth.finetune import engines
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.kept import Kept
from raysynth.finetune.training import train_pack
from raysynth.models.base import load_base
from raysynth.models.quantised import QuantisedLinear
from tests.finetune.conftest import Room
from tests.finetune.test_families import apart
from tests.finetune.test_training import quiet, weights
from tests.models.test_quantised import FORMS

FINETUNES = [{}, {"dora": True}, {"text_encoder": True, "gradient_checkpointing": True}]


def quantised(room: Room, form: str, **finetune):
    config = room.config(**finetune)
    return config.model_copy(update={"base": config.base.model_copy(update={"quantization": form})})


def with_its_numbers(*given, **named):
    """`load_base`, whose quantised layers are plain ones with the same numbers."""
    base = load_base(*given, **named)
    for part in base.parts.values():
        for name, layer in list(part.named_modules() if isinstance(part, nn.Module) else ()):
            if isinstance(layer, QuantisedLinear):
                plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
                plain.weight = nn.Parameter(layer.weight, requires_grad=False)
                plain.bias = layer.bias
                part.set_submodule(name, plain)
    return base


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("finetune", FINETUNES, ids=["lora", "dora", "text encoder"])
def test_adapters_are_those_of_a_base_with_the_same_numbers(
    room, tmp_path, monkeypatch, form, finetune
):
    config = quantised(room, form, **finetune)
    check_finetune(config)
    assert train_pack(room.pack(config, tmp_path / "packed"), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    assert train_pack(room.pack(room.config(**finetune), tmp_path / "plain", ["0-1"]), quiet) == {}
    monkeypatch.setattr(engines, "load_base", with_its_numbers)
    assert train_pack(room.pack(config, tmp_path / "same", ["0-1"]), quiet) == {}
    found = weights(tmp_path / "alone", "0-1")
    assert apart(weights(tmp_path / "same", "0-1"), found) < 1e-5
    assert apart(weights(tmp_path / "packed", "0-1"), found) < 1e-3
    assert 1e-5 < apart(weights(tmp_path / "plain", "0-1"), found) < 0.5
    assert all(tensor.dtype == torch.float32 for tensor in found.values())


def test_own_weights_of_a_quantised_base_are_not_trained(room):
    with pytest.raises(ConfigError, match=r"quantization=int8: .*Fix: finetune\.engine=lora, or"):
        check_finetune(quantised(room, "int8", engine="full"))
    check_finetune(quantised(room, "int8"))


def test_what_another_form_encoded_is_not_taken(room):
    keys = {
        Kept("", quantised(room, form).base, False).key([], np.zeros(0), np.zeros(0), ["a"])
        for form in ("none", "int8", "nf4")
    }
    assert len(keys) == 3
