"""Every optimizer: its library's own steps, each adapter by itself, resumed in another pack."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from raysynth.errors import ConfigError
from raysynth.finetune.checkpoints import read_checkpoint
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.learner import learning_rate_factor
from raysynth.finetune.optimizer import Steps, kept_bytes
from raysynth.finetune.settings import OPTIMIZERS
from raysynth.finetune.training import start, train_pack
from raysynth.generators.inputs import training_inputs
from tests.finetune.test_training import FILE, Killed, assert_same, killed_after, quiet, weights

WEIGHTS = 5000
"""More than the 8-bit one leaves alone."""


def here(name: str) -> bool:
    return all(find_spec(package) for package in OPTIMIZERS[name].packages)


@pytest.fixture(params=OPTIMIZERS.names)
def name(request):
    if not here(request.param):
        pytest.skip(f"{OPTIMIZERS[request.param].packages} is not installed")
    return request.param


def rows_of(count: int, seed: int = 0) -> list[nn.Parameter]:
    values = torch.randn(count, WEIGHTS, generator=torch.Generator().manual_seed(seed))
    return [nn.Parameter(values[p]) for p in range(count)]


def stepped(steps: Steps, slot: int, number: int) -> None:
    """Gradients of a bowl whose place is the slot's, of one row alone."""
    for other, row in enumerate(steps.rows):
        row.grad = row.detach() - 3 * slot - 1 if other == slot else None
    steps.set_rate(slot, 1e-2 * (number + 1))
    steps.step()


def test_rows_do_not_see_one_another(room, name):
    """Each of three rows ends where it ends alone, whenever the others are stepped."""
    settings = room.config(optimizer=name).finetune
    packed = Steps.of(rows_of(3), settings)
    for number in range(4):
        for slot in (2, 0, 1):
            if (slot, number) != (0, 3):
                stepped(packed, slot, number)
    for slot, count in ((0, 3), (1, 4), (2, 4)):
        alone = Steps.of([rows_of(3)[slot]], settings)
        for number in range(count):
            row = alone.rows[0]
            row.grad = row.detach() - 3 * slot - 1
            alone.set_rate(0, 1e-2 * (number + 1))
            alone.step()
        torch.testing.assert_close(packed.kept(slot), alone.kept(0), rtol=1e-6, atol=1e-7)
        assert not torch.equal(packed.kept(slot), rows_of(3)[slot])


def test_a_state_goes_on_in_another_slot_as_if_nothing_had_been(room, name):
    settings = room.config(optimizer=name).finetune
    through, cut = Steps.of(rows_of(2), settings), Steps.of(rows_of(2), settings)
    for number in range(5):
        stepped(through, 0, number)
    for number in range(3):
        stepped(cut, 0, number)
        stepped(cut, 1, number)
    kept, values = cut.state(0), cut.rows[0].detach().clone()
    other = Steps.of(rows_of(2, seed=9), settings)
    stepped(other, 1, 0)  # somebody was there before
    other.clear(1)
    assert other.state(1) == {}
    with torch.no_grad():
        other.rows[1].copy_(values)
    other.restore(1, {key: tensor.clone() for key, tensor in kept.items()})
    for number in (3, 4):
        other.rows[0].grad = None
        other.rows[1].grad = other.rows[1].detach() - 1
        other.set_rate(1, 1e-2 * (number + 1))
        other.step()
    assert torch.equal(other.kept(1), through.kept(0))
    assert other.state(1).keys() == kept.keys()


def test_adapters_are_the_same_alone_packed_and_resumed_elsewhere(
    room, tmp_path, monkeypatch, name
):
    config = room.config(optimizer=name, steps=4)
    train_pack(room.pack(config, tmp_path / "through"), quiet)
    train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), quiet)
    kept = read_checkpoint(str(tmp_path / "cut" / "0-1"))
    assert kept.step == 2 and {f"state.{s}" for s in OPTIMIZERS[name].states} <= set(kept.optimizer)
    monkeypatch.undo()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), quiet) == {}
    through = weights(tmp_path / "through", "0-1")
    assert_same(through, weights(tmp_path / "alone", "0-1"))
    assert_same(through, weights(tmp_path / "cut", "0-1"))


def test_they_differ_and_only_the_usual_one_is_silent_in_the_digest(room, tmp_path, name):
    config = room.config(optimizer=name)
    train_pack(room.pack(config, tmp_path / name, ["0-1"]), quiet)
    if name == "adamw":
        assert "optimizer" not in training_inputs(config)["knobs"]
        return
    assert training_inputs(config)["knobs"]["optimizer"] == name
    train_pack(room.pack(room.config(), tmp_path / "adamw", ["0-1"]), quiet)
    one, other = (load_file(tmp_path / of / "0-1" / FILE) for of in (name, "adamw"))
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_what_is_measured_on_held_out_images_is_what_is_kept(room, tmp_path):
    """Schedule-free's average, which is not where it trains."""
    more = {"optimizer": "schedule_free", "patience": 1, "evaluate_steps": 2, "steps": 4}
    pack = room.pack(room.config(**more), tmp_path, ["3-0"])
    assert train_pack(pack, quiet) == {}
    loop = start(pack, pack.jobs)
    row = loop.trainee.rows.parameters[0]
    row.grad = torch.ones_like(row)
    loop.optimizer.set_rate(0, 0.1)
    for _ in range(2):
        loop.optimizer.step()
    assert not torch.equal(loop.kept(0), row)
    z = loop.optimizer.state(0)["state.z"]
    torch.testing.assert_close(0.9 * loop.kept(0) + 0.1 * z, row.detach(), rtol=1e-4, atol=1e-6)


def test_schedule_free_stays_at_its_rate_and_prodigy_has_its_own(room):
    factors = [learning_rate_factor(done, 20, falls=False) for done in range(20)]
    assert factors == [0.5, 1.0] + 18 * [1.0]
    rates = {
        asked: {job.learning_rate for job in room.jobs(room.config(**more))}
        for asked, more in {
            "usual": {"optimizer": "adamw"},
            "own": {"optimizer": "prodigy"},
            "asked": {"optimizer": "prodigy", "learning_rate": 0.5},
        }.items()
    }
    assert rates == {"usual": {2e-3}, "own": {1.0}, "asked": {0.5}}


def test_prodigys_distance_grows_as_it_is_told_to(room):
    found = []
    for d_coef in (1.0, 2.0):
        optimizer = {"name": "prodigy", "d_coef": d_coef}
        steps = Steps.of(rows_of(1), room.config(optimizer=optimizer).finetune)
        for number in range(99, 110):  # at a rate of one
            stepped(steps, 0, number)
        found.append(steps.state(0)["group.d"].item())
    assert 1e-6 < found[0] < found[1]


def test_memory_is_counted_by_the_optimizers_state(room):
    bytes_of = {n: kept_bytes(room.config(optimizer=n).finetune) for n in OPTIMIZERS.names}
    assert bytes_of["adamw"] == 16 and bytes_of["prodigy"] == 24
    assert bytes_of["adamw_8bit"] < 10.5


def test_what_is_not_installed_is_refused(room, monkeypatch):
    monkeypatch.setattr("raysynth.finetune.optimizer.find_spec", lambda package: None)
    check_finetune(room.config())
    for name in set(OPTIMIZERS) - {"adamw"}:
        extra = re.escape(f"pip install 'raysynth[{OPTIMIZERS[name].extra}]'")
        with pytest.raises(ConfigError, match=f"optimizer={name}: needs .*Fix: {extra}"):
            check_finetune(room.config(optimizer=name))


def test_two_averages_are_refused(room):
    with pytest.raises(ConfigError, match=r"average of its own.*Fix: finetune\.ema=0"):
        check_finetune(room.config(optimizer="schedule_free", ema=0.9))
    check_finetune(room.config(optimizer="schedule_free"))
