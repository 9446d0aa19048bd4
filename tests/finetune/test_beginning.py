"""Trainings that begin with a given adapter, and ranks and forms that differ within a pack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysynth.adapters.banks import LoraBank
from raysynth.adapters.files import read_updates, write_updates
from raysynth.adapters.grouped_lora import inject, stack
from raysynth.adapters.layers import Form
from raysynth.adapters.record import LoraShape
from raysynth.errors import ConfigError, ModelError
from raysynth.finetune.beginning import check_start, hashed, start_of
from raysynth.finetune.checkpoints import read_checkpoint
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.publish.adapters import to_kohya
from tests.adapters.test_forms import disturbed
from tests.finetune.test_training import FILE, Killed, assert_same, killed_after, quiet, weights

LAYER = "up_blocks.1.resnets.0.conv1"


def given(room, folder, kind="peft", dora=False, also=()):
    """An adapter of attention, of rank 3 and 1."""
    base = load_base(room.config().base)
    names = [n for n, _ in base.model.named_modules() if n.endswith(("attn1.to_q", "attn2.to_v"))]
    forms = {n: Form(1 + 2 * (k % 2), 2.0, dora=dora) for k, n in enumerate((*names, *also))}
    lora = stack(base.model, forms, 1)
    lora.reset(0, torch.Generator().manual_seed(7))
    updates = disturbed(lora).updates(0)
    write_updates(updates, str(folder))
    if kind == "kohya":
        save_file(to_kohya(updates), folder / "one.safetensors")
        return str(folder / "one.safetensors"), updates
    return str(folder), updates


@pytest.mark.parametrize("kind", ["peft", "kohya"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_training_begins_with_the_file_and_keeps_its_ranks(room, tmp_path, kind, dora):
    path, updates = given(room, tmp_path / "given", kind, also=("conv_in",))
    # Nothing is learnt: what is saved is what was given, and no effect elsewhere.
    config = room.config(start=path, dora=dora, learning_rate=1e-30, weight_decay=0.0)
    assert train_pack(room.pack(config, tmp_path / "out"), quiet) == {}
    for name in ("0-0", "3-0"):
        found = read_updates(str(tmp_path / "out" / name))
        assert updates.keys() < found.keys()
        for layer, update in found.items():
            if layer in updates:
                assert replace(update.form, dora=False) == updates[layer].form
                torch.testing.assert_close(update.A, updates[layer].A)
                torch.testing.assert_close(update.B, updates[layer].B)
            else:
                assert update.form == Form(2, 3.0, dora=dora) and update.B.abs().max() < 1e-20


def test_adapters_that_began_with_a_file_learn_and_generate(room, tmp_path):
    path, updates = given(room, tmp_path / "given", dora=True)
    config = room.config(start=path, dora=True)
    assert train_pack(room.pack(config, tmp_path / "out"), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    assert_same(weights(tmp_path / "out", "0-1"), weights(tmp_path / "alone", "0-1"))
    name = next(iter(updates))
    assert not torch.equal(read_updates(str(tmp_path / "out" / "0-1"))[name].B, updates[name].B)
    base = load_base(room.config().base)
    shape = LoraShape.of(config.finetune)
    assert shape.started and shape.dora
    bank = LoraBank.of_run(base, str(tmp_path / "out"), ["0-0", "0-1"], shape)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    told = base.condition(["a", "b"])["states"]
    with torch.no_grad():
        mixed = bank.use(["0-0", "0-1"], 1)(x, 50, told).sample
        folded = bank.use(["0-1"], 1)(x[1:], 50, told[1:]).sample
    torch.testing.assert_close(mixed[1:], folded, rtol=1e-4, atol=1e-5)


def test_the_files_hash_is_in_the_digest_and_not_its_name(room, tmp_path):
    (tmp_path / "b").mkdir()
    path, _ = given(room, tmp_path / "a")
    one = hashed(room.config(start=path))
    data = (tmp_path / "a" / FILE).read_bytes()
    (tmp_path / "b" / FILE).write_bytes(data)
    same = hashed(room.config(start=str(tmp_path / "b")))
    assert training_inputs(one) == training_inputs(same) != training_inputs(room.config())
    given(room, tmp_path / "b", dora=True)
    assert training_inputs(hashed(room.config(start=str(tmp_path / "b")))) != training_inputs(one)
    assert hashed(room.config(start="/nowhere"), strict=False).finetune.start_sha256 is None
    absent, none = (training_inputs(room.config(**x)) for x in ({"start": "/nowhere"}, {}))
    assert absent != none
    with pytest.raises(ValueError, match="the hash of no file"):
        room.config(start_sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"finetune\.start: no adapter at /nowhere.*Fix"):
        hashed(room.config(start="/nowhere"))
    base = load_base(one.base)
    (tmp_path / "a" / FILE).write_bytes((tmp_path / "b" / FILE).read_bytes())
    with pytest.raises(ModelError, match="another file than the run began with"):
        start_of(one.finetune, base)


def refused(room, **finetune):
    config = room.config(**finetune)
    training = recipe_of(config).training
    check_start(config.finetune, config.base, training)


def test_a_start_that_does_not_fit_is_refused(room, tmp_path):
    path, _ = given(room, tmp_path / "dora", dora=True)
    refused(room, start=path, dora=True)
    with pytest.raises(ConfigError, match=r"lengths of rows.*Fix: finetune\.dora=true"):
        refused(room, start=path)
    with pytest.raises(ConfigError, match=r"finetune\.overrides: 0-0 with rank.*Fix"):
        refused(room, start=path, dora=True, overrides={"0-0": {"rank": 3}})
    with pytest.raises(ConfigError, match=r"trains no LoRA.*Fix: finetune\.engine=lora"):
        refused(room, start=path, engine="full")
    with pytest.raises(ModelError, match=r"finetune\.start: no adapter at /nowhere"):
        refused(room, start="/nowhere")


def test_a_start_of_another_base_is_refused_with_the_layers(room, tmp_path):
    network = load_base(room.config().base).model
    network.set_submodule(LAYER, torch.nn.Conv2d(3, 5, 3))
    network.add_module("extra", torch.nn.Linear(3, 3))
    stack(network, {"extra": Form(1, 1.0), LAYER: Form(1, 1.0)}, 1).save(0, str(tmp_path))
    match = r"2 of its 2 layers are not the base's, e\.g\. unet\.extra \(no such layer\); unet\.up"
    with pytest.raises(ConfigError, match=match):
        refused(room, start=str(tmp_path))


def test_a_start_on_the_text_encoder_needs_one_that_is_trained(room, tmp_path):
    base = replace(load_base(room.config().base), live=True)
    lora = stack(base.network, {"text_encoder.encoder.layers.0.mlp.fc1": Form(1, 1.0)}, 1, "")
    lora.reset(0, torch.Generator().manual_seed(0))
    lora.save(0, str(tmp_path / "given"))
    with pytest.raises(ConfigError, match=r"text_encoder too.*Fix: finetune\.text_encoder=true"):
        refused(room, start=str(tmp_path / "given"))
    begun = {"start": str(tmp_path / "given"), "text_encoder": True, "dora": True}
    refused(room, **begun)
    assert train_pack(room.pack(room.config(**begun), tmp_path / "out", ["0-0"]), quiet) == {}
    found = load_file(tmp_path / "out" / "0-0" / FILE)
    assert "text_encoder.encoder.layers.0.mlp.fc1.lora_magnitude_vector.weight" in found


FORMS = {"overrides": {"0-1": {"rank": 1}, "3-0": {"rank": 4, "alpha": 1.0}}}


@pytest.mark.parametrize("more", [{}, {"rslora": True, "dora": True}], ids=["lora", "dora"])
def test_ranks_in_one_pack_are_as_alone_and_resumed_in_another(room, tmp_path, monkeypatch, more):
    config = room.config(steps=4, **FORMS, **more)
    train_pack(room.pack(config, tmp_path / "through"), quiet)
    train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), quiet)
    assert read_checkpoint(str(tmp_path / "cut" / "0-1")).step == 2
    monkeypatch.undo()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), quiet) == {}
    for name, rank, alpha in (("0-1", 1, 3.0), ("3-0", 4, 1.0)):
        assert_same(weights(tmp_path / "through", name), weights(tmp_path / "cut", name))
        forms = {u.form for u in read_updates(str(tmp_path / "cut" / name)).values()}
        assert forms == {Form(rank, alpha, bool(more), bool(more))}
    assert_same(weights(tmp_path / "through", "0-1"), weights(tmp_path / "alone", "0-1"))
    shape = LoraShape.of(config.finetune)
    bank = LoraBank.of_run(load_base(config.base), str(tmp_path / "through"), ["0-0", "3-0"], shape)
    assert [next(iter(bank.lora.layers.values())).forms[p].rank for p in (0, 1)] == [2, 4]


def test_a_rank_of_its_own_does_not_depend_on_the_highest(room, tmp_path):
    train_pack(room.pack(room.config(rank=1), tmp_path / "all", ["0-1"]), quiet)
    train_pack(room.pack(room.config(**FORMS), tmp_path / "one", ["0-1"]), quiet)
    assert_same(weights(tmp_path / "all", "0-1"), weights(tmp_path / "one", "0-1"))


def test_overrides_without_a_rank_have_the_digest_they_had(room):
    config = room.config(overrides={"0-1": {"steps": 3}})
    told = training_inputs(config)["knobs"]["overrides"]
    assert told == {"0-1": {"steps": 3, "batch_size": None, "learning_rate": None}}
    assert not {"rslora", "dora", "start", "start_sha256"} & training_inputs(config)["knobs"].keys()


def test_adapters_of_low_rank_begin_as_they_did(room):
    """What is drawn for an adapter is its own, whatever the stacks have room for."""
    base = load_base(room.config().base)
    wide = inject(base.model, {"attention": base.family.targets["attention"]}, 4, 1.0, 1)
    wide.reset(0, torch.Generator().manual_seed(1), rank=2)
    base = load_base(room.config().base)
    low = inject(base.model, {"attention": base.family.targets["attention"]}, 2, 1.0, 1)
    low.reset(0, torch.Generator().manual_seed(1))
    for one, other in zip(wide.layers.values(), low.layers.values(), strict=True):
        assert torch.equal(one.A[0, :2], other.A[0]) and not one.A[0, 2:].any()
