"""Adapters on the text encoder: packed, resumed and refused like those of the network."""

from __future__ import annotations

import json

import pytest
import torch

from raysynth.errors import ConfigError
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.training import train_pack
from tests.finetune.test_training import Killed, assert_same, killed_after, quiet, weights


def test_both_parts_of_an_adapter_are_the_same_alone_and_packed(room, tmp_path):
    config = room.config(text_encoder=True, prompt_dropout=0.5)
    assert train_pack(room.pack(config, tmp_path / "packed"), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    packed = weights(tmp_path / "packed", "0-1")
    assert_same(packed, weights(tmp_path / "alone", "0-1"))
    layers = {key.split(".lora")[0] for key in packed if key.startswith("text_encoder.")}
    ends = {layer.rsplit(".", 1)[1] for layer in layers}
    assert ends == {"q_proj", "k_proj", "v_proj", "out_proj"}
    learnt = [packed[f"{layer}.lora_B.weight"].abs().max() for layer in layers]
    assert min(learnt) > 0


def test_an_adapter_goes_on_in_another_pack(room, tmp_path, monkeypatch):
    config = room.config(steps=4, ema=0.5, text_encoder=True)
    train_pack(room.pack(config, tmp_path / "through", ["0-1"]), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), quiet)
    monkeypatch.undo()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), quiet) == {}
    assert_same(weights(tmp_path / "through", "0-1"), weights(tmp_path / "cut", "0-1"))


def test_it_begins_as_the_base(room, tmp_path):
    """B is zero at the start, so the first losses are those without."""
    first = []
    for name, on in (("off", False), ("on", True)):
        config = room.config(steps=1, text_encoder=on)
        train_pack(room.pack(config, tmp_path / name, ["3-0"]), quiet)
        first += json.loads((tmp_path / name / "3-0" / "losses.json").read_text())
    assert first[0] == pytest.approx(first[1], rel=1e-5)
    off, on = (weights(tmp_path / name, "3-0").keys() for name in ("off", "on"))
    assert off < on and all(key.startswith("text_encoder.") for key in on - off)


def test_terms_and_prior_images_read_their_prompts_with_it(room, tmp_path):
    terms = room.config("shared", engine="lora", per="all", terms=["cbdm"], text_encoder=True)
    assert train_pack(room.pack(terms, tmp_path / "terms"), quiet) == {}
    prior = room.config(prior_weight=1.0, prior_images=3, text_encoder=True)
    assert train_pack(room.pack(prior, tmp_path / "prior", ["3-0"]), quiet) == {}
    for found in (weights(tmp_path / "terms", "shared"), weights(tmp_path / "prior", "3-0")):
        assert any(key.startswith("text_encoder.") for key in found)
        assert all(torch.isfinite(tensor).all() for tensor in found.values())


@pytest.mark.parametrize(
    ("generator", "said"),
    [("dreambooth", "weights of the network alone"), ("vanilla", "trains nothing")],
)
def test_models_without_adapters_are_refused(room, generator, said):
    config = room.config(generator, text_encoder=True)
    with pytest.raises(ConfigError, match=rf"generator={generator} .*{said}.*Fix: finetune.engine"):
        check_finetune(config)
    check_finetune(room.config(generator))
