"""Adapters of every family: the same alone, packed and resumed; text encoders, full weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from raysynth.errors import ConfigError
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.training import train_pack
from raysynth.models.base import load_base
from raysynth.models.family import layers_of
from tests.finetune.conftest import Room
from tests.finetune.test_training import Killed, killed_after, quiet, weights
from tests.models.random_families import WRITERS, write_family

NAMES = tuple(WRITERS)


@pytest.fixture(scope="module")
def rooms(room, tmp_path_factory) -> dict[str, Room]:
    """The miniature room with a base of each family."""
    folder = tmp_path_factory.mktemp("families")
    return {name: replace(room, base=write_family(name, folder / name)) for name in NAMES}


def apart(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Length of the difference of two adapters over that of the second.

    AdamW moves a weight by the sign of a gradient that is nearly zero: single numbers may differ.
    """
    assert mine.keys() == theirs.keys()
    one, other = (torch.cat([w[key].flatten() for key in sorted(w)]) for w in (mine, theirs))
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_the_same_alone_packed_and_resumed(rooms, tmp_path, monkeypatch, name):
    room = rooms[name]
    config = room.config(steps=4, prompt_dropout=0.5)
    check_finetune(config)
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), quiet)
    monkeypatch.undo()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), quiet) == {}
    found = weights(tmp_path / "alone", "0-1")
    assert apart(found, weights(tmp_path / "cut", "0-1")) < 0.01
    base = load_base(config.base)
    assert all(key.startswith(base.prefix) for key in found)
    kinds = layers_of(base.family, config.finetune.targets)
    for kind, ends in kinds.items():
        of_kind = [k for k in found if any(k.split(".lora_")[0].endswith(end) for end in ends)]
        assert of_kind, f"no layer of the kind {kind}"
        assert max(found[k].abs().max() for k in of_kind if "lora_B" in k) > 0


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_no_adapter(rooms, tmp_path, name):
    for on in (False, True):
        config = rooms[name].config(gradient_checkpointing=on)
        assert train_pack(rooms[name].pack(config, tmp_path / str(on), ["0-1"]), quiet) == {}
    plain, saved = (weights(tmp_path / str(on), "0-1") for on in (False, True))
    assert apart(plain, saved) < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_full_weights_are_saved_under_the_familys_part(rooms, tmp_path, name):
    room = rooms[name]
    config = room.config(engine="full", steps=2, prior_weight=1.0, prior_images=2)
    assert train_pack(room.pack(config, tmp_path, ["0-1"]), quiet) == {}
    part = load_base(config.base).family.roles["model"][0]
    (file,) = (tmp_path / "0-1" / part).glob("*.safetensors")
    before = load_file(room.base / part / "diffusion_pytorch_model.safetensors")
    after = load_file(file)
    assert after.keys() == before.keys()
    assert any((after[key] != before[key]).any() for key in before)


def test_both_text_encoders_of_sdxl_learn(rooms, tmp_path):
    room = rooms["stable_diffusion_xl"]
    config = room.config(text_encoder=True, prompt_dropout=0.5)
    assert train_pack(room.pack(config, tmp_path / "packed", ["0-0", "0-1"]), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    found = weights(tmp_path / "packed", "0-1")
    assert apart(found, weights(tmp_path / "alone", "0-1")) < 0.01
    for part in ("text_encoder.", "text_encoder_2.", "unet."):
        learnt = [v.abs().max() for k, v in found.items() if k.startswith(part) and "lora_B" in k]
        assert max(learnt) > 0


@pytest.mark.parametrize("name", ["auraflow", "z_image"])
def test_encoders_that_diffusers_reads_no_adapters_of_are_refused(rooms, name):
    with pytest.raises(ConfigError, match=r"finetune\.text_encoder=true: base\.name is .*Fix: "):
        check_finetune(rooms[name].config(text_encoder=True))


def test_layers_that_a_family_has_not_are_refused(rooms):
    with pytest.raises(ConfigError, match=r"\[convolution\]: AuraFlow has no such.*Fix: finetune"):
        check_finetune(rooms["auraflow"].config(targets=["convolution"]))
