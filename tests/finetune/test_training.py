"""Packs: neighbours, resume and failures change no adapter; both engines and the prior train."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from raysynth.adapters.record import read_adapter
from raysynth.finetune import entering, memory, training
from raysynth.finetune.checkpoints import read_checkpoint
from raysynth.finetune.learner import learning_rate_factor
from raysynth.finetune.scaling import LossScale
from raysynth.finetune.training import train_pack
from tests.finetune.conftest import laid

FILE = "pytorch_lora_weights.safetensors"


class Killed(Exception):
    """Stands for the end of the process."""


def quiet(done, failed, fit="", **more):
    pass


def weights(work, name):
    return load_file(work / name / FILE)


def assert_same(one, other):
    """Equal up to the rounding of differently shaped matrix products, after AdamW."""
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=2e-4)


def test_adapter_is_the_same_alone_and_packed(room, tmp_path):
    config = room.config(accumulation=2)
    assert train_pack(room.pack(config, tmp_path / "packed"), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "alone", ["0-1"]), quiet) == {}
    assert_same(weights(tmp_path / "packed", "0-1"), weights(tmp_path / "alone", "0-1"))
    record = read_adapter(str(tmp_path / "packed" / "3-0"))
    assert (record.label, record.attribute, record.images) == ("coat", "gravel", 10)
    assert record.prompt == "a photo of a sks coat on gravel"
    losses = json.loads((tmp_path / "packed" / "3-0" / "losses.json").read_text())
    assert len(losses) == 3 and all(loss > 0 for loss in losses)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_adapter_is_the_same_after_a_resume_in_another_pack(room, tmp_path, monkeypatch, ema):
    config = room.config(steps=4, ema=ema)
    train_pack(room.pack(config, tmp_path / "through"), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["0-0", "0-1"]), quiet)
    assert read_checkpoint(str(tmp_path / "cut" / "0-1")).step == 2
    monkeypatch.undo()
    assert train_pack(room.pack(config, tmp_path / "cut", ["0-1", "3-0"]), quiet) == {}
    for name in ("0-1", "3-0"):
        assert_same(weights(tmp_path / "through", name), weights(tmp_path / "cut", name))
    assert not (tmp_path / "cut" / "0-1" / "checkpoint.safetensors").exists()
    assert read_adapter(str(tmp_path / "cut" / "0-0")) is None


def test_non_finite_adapter_fails_alone(room, tmp_path):
    config = room.config()
    pack = room.pack(config, tmp_path / "one")
    through = room.pack(config, tmp_path / "through")
    train_pack(through, quiet)
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "0-1")
        failed = train_pack(pack, quiet)
    assert list(failed) == ["0-1"] and "not finite" in failed["0-1"]
    assert read_adapter(str(tmp_path / "one" / "0-1")) is None
    for name in ("0-0", "2-0", "3-0"):
        assert_same(weights(tmp_path / "through", name), weights(tmp_path / "one", name))


def test_weights_that_are_not_finite_are_never_an_adapter(room, tmp_path, monkeypatch):
    """The last step's loss and gradient are finite, what the optimizer made of them is not."""
    real_step = training.step

    def step(loop, phase, number):
        found = real_step(loop, phase, number)
        if loop.learners[0].done + number == 2:
            loop.trainee.rows.values[1, 7] = float("inf")
        return found

    monkeypatch.setattr(training, "step", step)
    failed = train_pack(room.pack(room.config(), tmp_path, ["0-0", "0-1", "3-0"]), quiet)
    assert list(failed) == ["0-1"] and "weights not finite by step 3" in failed["0-1"]
    assert sorted(path.parent.name for path in tmp_path.glob(f"*/{FILE}")) == ["0-0", "3-0"]


def harmed(file, harm):
    """Replace a checkpoint's file."""
    tensors, about = load_file(file), {"step": "2", "best_loss": "inf", "best_step": "0"}
    if harm == "not finite":
        tensors["optimizer.state.exp_avg"][3] = float("nan")
    elif harm == "weights has":
        tensors["weights"] = tensors["weights"][:-1].clone()
    elif harm == "losses has":
        tensors["losses"] = tensors["losses"][:1].clone()
    elif harm == "missing":
        del tensors["optimizer.state.exp_avg_sq"]
    save_file(tensors, file, about)
    if harm == "incomplete":
        file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    "harm", ["not finite", "weights has", "losses has", "missing", "incomplete"]
)
def test_a_checkpoint_that_is_damaged_is_said_and_dropped(room, tmp_path, monkeypatch, harm):
    pack = room.pack(room.config(), tmp_path, ["0-1"])
    killed_after(monkeypatch, 2)
    with pytest.raises(Killed):
        train_pack(pack, quiet)
    harmed(tmp_path / "0-1" / "checkpoint.safetensors", harm)
    monkeypatch.undo()
    taken, fits = most_at_once(monkeypatch), []
    assert train_pack(pack, lambda done, failed, fit="", **more: fits.append(fit)) == {}
    assert len(taken) == 3, "from the beginning"
    assert f"{tmp_path}/0-1/checkpoint.safetensors: " in fits[-1] and harm in fits[-1]
    assert fits[-1].endswith("; 0-1 is trained from its beginning")
    train_pack(room.pack(room.config(), tmp_path / "through", ["0-1"]), quiet)
    assert_same(weights(tmp_path / "through", "0-1"), weights(tmp_path, "0-1"))


def test_adapter_without_its_images_fails_alone(room, tmp_path):
    pack = room.pack(room.config(), tmp_path)
    broken = replace(pack.jobs[0], ids=("gone",) * len(pack.jobs[0].ids))
    failed = train_pack(replace(pack, jobs=[broken, *pack.jobs[1:]]), quiet)
    assert list(failed) == ["0-0"] and "training images are missing" in failed["0-0"]
    assert read_adapter(str(tmp_path / "3-0"))


def test_complete_adapters_are_not_trained_again(room, tmp_path, monkeypatch):
    pack = room.pack(room.config(), tmp_path, ["0-0"])
    train_pack(pack, quiet)
    killed_after(monkeypatch, 0)
    assert train_pack(pack, quiet) == {}


def test_full_engine_resumes_and_saves_a_unet(room, tmp_path, monkeypatch):
    config = room.config("shared", per="all", learning_rate=1e-3, ema=0.9, steps=4)
    train_pack(room.pack(config, tmp_path / "through"), quiet)
    killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut"), quiet)
    monkeypatch.undo()
    train_pack(room.pack(config, tmp_path / "cut"), quiet)
    through, cut = (load_unet(tmp_path / name / "shared") for name in ("through", "cut"))
    base = load_unet(room.base)
    for one, other in zip(through.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(through.conv_in.weight, base.conv_in.weight)


def test_prior_images_change_the_result_and_are_drawn_once(room, tmp_path):
    plain, prior = room.config(), room.config(prior_weight=1.0, prior_images=3)
    train_pack(room.pack(plain, tmp_path / "plain", ["3-0"]), quiet)
    train_pack(room.pack(prior, tmp_path / "prior", ["3-0"]), quiet)
    drawn = (tmp_path / "prior" / ".prior" / "3.safetensors").stat().st_mtime_ns
    key = next(k for k in weights(tmp_path / "plain", "3-0") if "lora_B" in k)
    one, other = (weights(tmp_path / name, "3-0")[key] for name in ("plain", "prior"))
    assert not torch.allclose(one, other)
    (tmp_path / "prior" / "3-0" / "adapter.json").unlink()
    train_pack(room.pack(prior, tmp_path / "prior", ["3-0"]), quiet)
    assert (tmp_path / "prior" / ".prior" / "3.safetensors").stat().st_mtime_ns == drawn
    assert torch.equal(weights(tmp_path / "prior", "3-0")[key], other)


@pytest.mark.parametrize("changed", [{"flip": False}, {"ema": 0.5}, {"prompt_dropout": 0.9}])
def test_settings_reach_the_training(room, tmp_path, changed):
    train_pack(room.pack(room.config(), tmp_path / "default", ["3-0"]), quiet)
    train_pack(room.pack(room.config(**changed), tmp_path / "changed", ["3-0"]), quiet)
    one, other = (weights(tmp_path / name, "3-0") for name in ("default", "changed"))
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_gradient_checkpointing_changes_no_result(room, tmp_path):
    for name, on in (("off", False), ("on", True)):
        train_pack(room.pack(room.config(gradient_checkpointing=on), tmp_path / name), quiet)
    assert_same(weights(tmp_path / "off", "2-0"), weights(tmp_path / "on", "2-0"))


def test_one_process_trains_in_one_precision_after_another(room, tmp_path):
    for precision in ("bfloat16", "float32"):
        config = room.config(precision=precision)
        assert train_pack(room.pack(config, tmp_path / precision, ["2-0"]), quiet) == {}


def test_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(done, 20) for done in range(21)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[11] == pytest.approx(0.5)
    assert factors[20] == pytest.approx(0.0)


def killed_after(monkeypatch, steps):
    taken = []
    real_step = training.step

    def step(*args):
        if len(taken) == steps:
            raise Killed
        taken.append(1)
        return real_step(*args)

    monkeypatch.setattr(training, "step", step)


def poison(monkeypatch, name):
    real_prepare = entering.prepare

    def prepare(job, *rest):
        material = real_prepare(job, *rest)
        return replace(
            material, moments=material.moments * (float("nan") if job.name == name else 1)
        )

    monkeypatch.setattr(entering, "prepare", prepare)


def load_unet(folder):
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet")


def test_few_slots_train_the_same_adapters_one_after_another(room, tmp_path, monkeypatch):
    """Finished adapters leave, the next enter; batches, budgets and rates differ."""
    own = {"0-0": {"steps": 5}, "0-1": {"batch_size": 3}, "2-0": {"learning_rate": 4e-3}}
    config = room.config(overrides=own, steps=3)
    assert train_pack(room.pack(config, tmp_path / "all"), quiet) == {}
    monkeypatch.setattr(memory, "slots_within", lambda *_: 2)
    together = most_at_once(monkeypatch)
    assert train_pack(room.pack(config, tmp_path / "two"), quiet) == {}
    assert max(together) == 2
    for name in ("0-0", "0-1", "2-0", "3-0"):
        assert_same(weights(tmp_path / "all", name), weights(tmp_path / "two", name))
        steps = 5 if name == "0-0" else 3
        assert len(json.loads((tmp_path / "two" / name / "losses.json").read_text())) == steps
        assert read_adapter(str(tmp_path / "two" / name)).steps == steps


def test_early_stopping_keeps_the_best_weights(room, tmp_path, monkeypatch):
    settings = {"patience": 1, "evaluate_steps": 2, "holdout": 0.3}
    config = room.config(steps=12, **settings)
    held_out = iter([2.0, 1.0, 3.0, 4.0])
    real_losses = training.losses

    def losses(loop, phase, micro):
        found = real_losses(loop, phase, micro)
        return found if torch.is_grad_enabled() else found * 0 + next(held_out)

    monkeypatch.setattr(training, "losses", losses)
    assert train_pack(room.pack(config, tmp_path / "stopped", ["3-0"]), quiet) == {}
    assert read_adapter(str(tmp_path / "stopped" / "3-0")).steps == 6
    monkeypatch.setattr(training, "losses", real_losses)
    # The schedule of twelve steps, cut off after the fourth, at the least held-out loss.
    long = room.config(steps=12, **settings, checkpoint_steps=4)
    killed_after(monkeypatch, 4)
    with pytest.raises(Killed):
        train_pack(room.pack(long, tmp_path / "cut", ["3-0"]), quiet)
    kept = read_checkpoint(str(tmp_path / "cut" / "3-0"))
    best = weights(tmp_path / "stopped", "3-0")
    torch.testing.assert_close(
        kept.weights.norm(), sum(w.square().sum() for w in best.values()) ** 0.5
    )


def test_early_stopping_looks_at_the_end_and_trains_a_single_image(room, tmp_path, monkeypatch):
    config = room.config(steps=5, patience=9, evaluate_steps=2, holdout=0.3)
    held_out = iter([3.0, 2.0, 1.0])  # after 2, 4 and 5 steps
    real_losses = training.losses

    def losses(loop, phase, micro):
        found = real_losses(loop, phase, micro)
        return found if torch.is_grad_enabled() else found * 0 + next(held_out)

    monkeypatch.setattr(training, "losses", losses)
    pack = room.pack(config, tmp_path, ["3-0"])
    assert train_pack(pack, quiet) == {}
    assert next(held_out, None) is None
    one = replace(
        pack.jobs[0], name="one", ids=pack.jobs[0].ids[:1], groups=pack.jobs[0].groups[:1], batch=1
    )
    assert train_pack(replace(pack, jobs=[one]), quiet) == {}, "nothing is held out"
    assert read_adapter(str(tmp_path / "one")).steps == 5


def test_early_stopping_resumes(room, tmp_path, monkeypatch):
    config = room.config(steps=6, patience=3, evaluate_steps=2, ema=0.5)
    train_pack(room.pack(config, tmp_path / "through", ["3-0"]), quiet)
    killed_after(monkeypatch, 5)
    with pytest.raises(Killed):
        train_pack(room.pack(config, tmp_path / "cut", ["3-0"]), quiet)
    monkeypatch.undo()
    train_pack(room.pack(config, tmp_path / "cut", ["3-0", "2-0"]), quiet)
    assert_same(weights(tmp_path / "through", "3-0"), weights(tmp_path / "cut", "3-0"))


def test_loss_scale_changes_no_result_and_an_overflow_skips_one_adapter(
    room, tmp_path, monkeypatch
):
    config = room.config()
    train_pack(room.pack(config, tmp_path / "plain"), quiet)
    monkeypatch.setattr(training.LossScale, "of", scaled(2.0**10))
    train_pack(room.pack(config, tmp_path / "scaled"), quiet)
    assert_same(weights(tmp_path / "plain", "0-1"), weights(tmp_path / "scaled", "0-1"))
    monkeypatch.setattr(training.LossScale, "of", scaled(2.0**10, overflow=2))
    monkeypatch.setattr(training.LossScale, "reset", lambda scale, slot: None)
    assert train_pack(room.pack(config, tmp_path / "over"), quiet) == {}
    over = {name: weights(tmp_path / "over", name) for name in ("0-0", "2-0", "3-0")}
    for name in ("0-0", "3-0"):
        assert_same(weights(tmp_path / "plain", name), over[name])
    assert not any(w.any() for key, w in over["2-0"].items() if "lora_B" in key)


def test_full_engine_trains_each_adapter_from_the_base(room, tmp_path):
    config = room.config(engine="full", learning_rate=1e-3)
    assert train_pack(room.pack(config, tmp_path / "two", ["0-1", "3-0"]), quiet) == {}
    assert train_pack(room.pack(config, tmp_path / "one", ["3-0"]), quiet) == {}
    together, alone = (load_unet(tmp_path / name / "3-0") for name in ("two", "one"))
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def most_at_once(monkeypatch):
    seen = []
    real_step = training.step

    def step(loop, *args):
        seen.append(len(loop.learners))
        return real_step(loop, *args)

    monkeypatch.setattr(training, "step", step)
    return seen


def scaled(start, overflow=None):
    """A dynamic scale on a float32 training; one slot's gradient always overflows."""

    def of(precision, slots, device):
        values = torch.full((slots,), start)
        if overflow is not None:
            values[overflow] = float("inf")
        return LossScale(values, torch.zeros(slots, dtype=torch.int64), True)

    return of


@pytest.mark.parametrize("share", [2.0, 0.5], ids=["loose", "clipped"])
def test_micro_batches_are_one_batch_of_all_their_rows(room, tmp_path, share):
    """Their gradients are divided by their number once, before they are clipped."""
    config = room.config(accumulation=3)
    pack = room.pack(config, tmp_path, ["3-0"])
    loop = training.start(pack, pack.jobs)
    assert training._admit(loop, list(pack.jobs)) == {}
    turn = laid(loop)
    phase = turn.phase
    trained, rows = loop.trainee, loop.trainee.rows
    with torch.no_grad():  # PEFT's start has no gradient in A
        dice = torch.Generator().manual_seed(0)
        rows.values.add_(torch.randn(rows.values.shape, generator=dice) * 0.05)
    whole = replace(
        phase,
        entries=phase.entries[:3].reshape(1, -1),
        spoken=phase.spoken[:3].reshape(1, -1),
        uniform=phase.uniform[:3].reshape(1, -1),
        weights=torch.full((1, 6), 1 / 6),
    )
    noise = torch.cat([phase.noise(micro, config.seed) for micro in range(3)], 1)
    object.__setattr__(whole, "noise", lambda micro, seed: noise)
    trained.route([0] * 6)
    rows.gradients.zero_()
    (loss,) = training.losses(loop, whole, 0)
    loss.backward()
    expected = rows.gradients.clone()
    norm = float(expected.norm())
    expected *= min(1.0, share)
    loop.pack = room.pack(room.config(accumulation=3, max_grad_norm=share * norm), tmp_path)
    training.route(loop, phase, loop.learners)
    taken = training.step(loop, [turn], 0)
    torch.testing.assert_close(taken, loss.detach()[None])
    difference = float((rows.gradients - expected).norm() / expected.norm())
    assert difference < 1e-3
