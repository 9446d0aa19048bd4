"""Experts per noise level: their bins, their training, who draws where, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import norm

from raysynth.adapters.record import read_adapter
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.finetune import training
from raysynth.finetune.checks import check_jobs
from raysynth.finetune.draws import draw, noise_of
from raysynth.finetune.experts import (
    complete,
    edges,
    expanded,
    expert_at,
    levels_of,
    name_of,
    names_of,
    within,
)
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.models.prediction import Prediction
from tests.finetune.conftest import GROUPS
from tests.finetune.test_terms import FILE, equal, quiet

FLOW = Prediction("flow_prediction", 1000, None)
EPSILON = Prediction("epsilon", 1000, torch.linspace(0.999, 0.002, 1000))
EXPERTS = {"experts": 2, "steps": 6, "learning_rate": 5e-3}


def test_bins_have_the_same_mass_or_the_same_decibels():
    assert edges(FLOW, 4, "mass") == [0.0, 0.25, 0.5, 0.75, 1.0]
    found = edges(FLOW, 3, "snr")
    width = norm.ppf(0.99) / 3  # decibels of logit-normal levels are normal
    assert edges(EPSILON, 3, "mass") == [0.0, 0.333, 0.667, 1.0], "between whole timesteps"
    assert found == pytest.approx([0, norm.cdf(-width), norm.cdf(width), 1], abs=1e-3)
    for by in ("mass", "snr"):
        bounds = edges(EPSILON, 5, by)
        assert bounds[0] == 0 and bounds[-1] == 1 and (np.diff(bounds) > 0).all()
    inner = torch.tensor([0.01, *edges(EPSILON, 5, "snr")[1:-1], 0.99])
    assert EPSILON.snr_db(EPSILON.draw(inner)).diff().numpy() == pytest.approx(
        [float(EPSILON.snr_db(EPSILON.draw(inner)).diff().mean())] * 5, abs=0.4
    )


@pytest.mark.parametrize("prediction", [FLOW, EPSILON], ids=["flow", "epsilon"])
@pytest.mark.parametrize("by", ["mass", "snr"])
def test_every_timestep_that_an_expert_learns_is_its_own_when_drawing(room, prediction, by):
    config = room.config(**(EXPERTS | {"experts": 3, "experts_by": by}))
    (job,) = (job for job in room.jobs(config) if job.name == "3-0")
    levels = levels_of(prediction, 3, by)
    uniform = np.linspace(1e-6, 1 - 1e-6, 2001, dtype=np.float32)
    assert within(uniform, job, config.finetune, prediction) is uniform, "all levels"
    for expert in expanded([job], config.finetune)[1:]:
        laid = within(uniform, expert, config.finetune, prediction)
        assert laid.dtype == uniform.dtype and (np.diff(laid) >= 0).all()
        timestep = prediction.draw(torch.from_numpy(laid))
        share = (timestep / prediction.timesteps).tolist()
        assert {expert_at(levels, level) for level in share} == {expert.bin}


def test_steps_are_shared_out_and_none_is_lost(room):
    config = room.config(**(EXPERTS | {"experts": 3, "steps": 8}))
    jobs = room.jobs(config)
    found = expanded(jobs, config.finetune)
    own = {job.name: job.steps for job in found if job.name.startswith("3-0")}
    assert own == {"3-0": 4, "3-0.t0": 2, "3-0.t1": 1, "3-0.t2": 1}
    assert sum(job.steps for job in found) == sum(job.steps for job in jobs)
    assert expanded(jobs, config.finetune.model_copy(update={"experts": 1})) == jobs
    assert names_of(["a"], 1) == [] and names_of(["a"], 2) == ["a.t0", "a.t1"]


def test_experts_have_random_numbers_of_their_own(room):
    config = room.config(**EXPERTS)
    job, first, second = expanded(room.jobs(config)[:1], config.finetune)
    drawn = [noise_of(one, 0, (8,), 0) for one in (job, first, second)]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
    rows = [draw(one, config.finetune, 0).uniform for one in (first, second)]
    assert not np.array_equal(*(each[:2] for each in rows))


@pytest.mark.parametrize("more", [{}, {"prior_weight": 1.0, "prior_images": 2}])
def test_experts_are_the_same_alone_packed_and_resumed(room, tmp_path, cut_off, more):
    def trained(work, names=None):
        # Adam steps as far for the smallest gradient: roundings of another batch may turn a few.
        config = room.config(**(EXPERTS | {"learning_rate": 2e-3} | more))
        assert train_pack(room.pack(config, tmp_path / work, names), quiet) == {}
        return {n: load_file(tmp_path / work / n / FILE) for n in ("3-0", "3-0.t0", "3-0.t1")}

    packed, alone = trained("packed", ["0-0", "3-0"]), trained("alone", ["3-0"])
    cut_off(lambda: trained("cut", ["3-0"]))
    resumed = trained("cut", ["0-0", "3-0"])
    for name, weights in packed.items():
        for key, tensor in weights.items():
            for other in (alone, resumed):
                torch.testing.assert_close(tensor, other[name][key], rtol=1e-2, atol=2e-3)
    apart = [packed["3-0.t0"], packed["3-0.t1"], packed["3-0"]]
    assert not any(equal(*pair) for pair in zip(apart, apart[1:] + apart[:1], strict=True))
    record = json.loads((tmp_path / "packed" / "3-0.t1" / "adapter.json").read_text())
    assert record["parent"] == "3-0" and record["steps"] == 1
    assert "parent" not in json.loads((tmp_path / "packed" / "3-0" / "adapter.json").read_text())


def test_an_expert_goes_on_from_its_adapter(room, tmp_path):
    config = room.config(**(EXPERTS | {"learning_rate": 1e-12}))
    assert train_pack(room.pack(config, tmp_path, ["3-0"]), quiet) == {}
    own, expert = (load_file(tmp_path / name / FILE) for name in ("3-0", "3-0.t0"))
    for key, tensor in own.items():
        torch.testing.assert_close(tensor, expert[key], rtol=1e-4, atol=1e-6)
    pack = room.pack(config, tmp_path, ["3-0"])
    assert complete(str(tmp_path), pack.jobs[0], config.finetune)
    (tmp_path / "3-0.t1" / "adapter.json").unlink()
    assert not complete(str(tmp_path), pack.jobs[0], config.finetune)


def test_full_weights_have_experts_too(room, tmp_path):
    config = room.config("dreambooth", engine="full", **EXPERTS, prior_weight=0)
    pack = room.pack(config, tmp_path, ["3-0"])
    assert train_pack(pack, quiet) == {}
    assert read_adapter(f"{tmp_path}/3-0.t1").engine == "full"


def test_an_adapter_that_fails_fails_its_experts_alone(room, tmp_path, monkeypatch):
    real = training.enter

    def enter(loop, job, slot):
        if job.name == "0-0":
            raise ValueError("broken")
        return real(loop, job, slot)

    monkeypatch.setattr(training, "enter", enter)
    failed = train_pack(room.pack(room.config(**EXPERTS), tmp_path, ["0-0", "3-0"]), quiet)
    assert failed == {
        "0-0": "ValueError: broken",
        "0-0.t0": "0-0 is not there to go on from",
        "0-0.t1": "0-0 is not there to go on from",
    }
    assert read_adapter(f"{tmp_path}/{name_of('3-0', 1)}") is not None


def test_one_model_for_all_levels_is_what_it_was():
    plain = load_config(None, ["generator=lora"])
    assert training_inputs(plain) == training_inputs(
        load_config(None, ["generator=lora", "finetune.experts_share=0.3"])
    )
    several = load_config(None, ["generator=lora", "finetune.experts=3"])
    assert training_inputs(several) != training_inputs(plain)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator=vanilla"], r"generator=vanilla trains no model"),
        (["generator=lora", "finetune.steps=4"], r"of the 4 steps of adapter 0-0, 2 are left"),
    ],
)
def test_experts_that_would_not_be_trained_are_refused(overrides, message):
    config = load_config(None, ["finetune.experts=3", *overrides])
    with pytest.raises(ConfigError, match=message):
        check_jobs(config, GROUPS, np.array([90, 10, 10, 90]))
