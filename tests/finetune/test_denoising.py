"""min-SNR weights and offset noise: their formulas, off by default, the same in any pack."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.training_utils import compute_snr

from raysynth.errors import ConfigError
from raysynth.finetune.checks import check_finetune
from raysynth.finetune.entering import enter
from raysynth.finetune.objectives.denoising import DenoisingKnobs, min_snr_weight
from raysynth.finetune.phase import Row, lay_out
from raysynth.finetune.settings import OBJECTIVES
from raysynth.finetune.training import start, train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.models.base import load_base
from raysynth.models.prediction import Prediction
from tests.finetune.test_training import assert_same, quiet, weights

GAMMA = 5.0


@pytest.fixture(scope="module")
def diffusion(room, tmp_path_factory):
    """The room with a base that predicts noise."""
    base = tmp_path_factory.mktemp("diffusion") / "base"
    shutil.copytree(room.base, base)
    DPMSolverMultistepScheduler(prediction_type="epsilon").save_pretrained(base / "scheduler")
    return replace(room, base=base)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_weights_are_the_papers(room, kind):
    """As diffusers' own training scripts have them, from its signal-to-noise ratio."""
    scheduler = load_base(room.config().base).scheduler
    t = torch.arange(0, 1000, 37)
    snr = compute_snr(scheduler, t)
    capped = torch.minimum(snr, torch.tensor(GAMMA))
    expected = {"epsilon": capped / snr, "v_prediction": capped / (snr + 1), "sample": capped}
    prediction = Prediction(kind, 1000, scheduler.alphas_cumprod)
    found = min_snr_weight(prediction, t.float(), GAMMA)
    torch.testing.assert_close(found, expected[kind], rtol=1e-4, atol=1e-6)


def test_the_last_level_of_pure_noise_has_a_weight():
    """Where a schedule ends without any signal, the ratio is 0 and its inverse infinite."""
    prediction = Prediction("epsilon", 2, torch.tensor([0.5, 0.0]))
    assert min_snr_weight(prediction, torch.tensor([1.0]), GAMMA).tolist() == [1.0]
    velocity = Prediction("v_prediction", 2, torch.tensor([0.5, 0.0]))
    assert min_snr_weight(velocity, torch.tensor([1.0]), GAMMA).tolist() == [0.0]


def test_losses_are_weighed(diffusion, tmp_path):
    """A weight so that no level is capped is the error itself, of noise."""
    plain, none, some = (
        losses_of(diffusion, tmp_path / str(gamma), gamma) for gamma in (None, 1e-9, GAMMA)
    )
    assert all(0 < weighed <= error for weighed, error in zip(some, plain, strict=True))
    assert some != plain
    assert all(weighed < 1e-6 for weighed in none)


def losses_of(room, work, gamma):
    objective = "denoising" if gamma is None else {"name": "denoising", "min_snr": gamma}
    config = room.config(objective=objective, steps=1)
    assert train_pack(room.pack(config, work), quiet) == {}
    found = [json.loads(path.read_text())[0] for path in sorted(work.glob("*/losses.json"))]
    assert len(found) > 1
    return found


def micro_batch(room, tmp_path, offset):
    config = room.config(noise_offset=offset)
    pack = room.pack(config, tmp_path, ["0-0", "3-0"])
    loop = start(pack, pack.jobs)
    for job, slot in zip(pack.jobs, (0, 1), strict=True):
        loop.learners.append(enter(loop, job, slot))
    phase = lay_out([Row(x.job, x.material, 0, 0) for x in loop.learners], 1)
    return phase.noised(0, pack.seed, loop.denoiser, offset), loop.base.prediction


def test_offset_noise_is_one_number_for_a_channel(room, tmp_path):
    plain, _ = micro_batch(room, tmp_path, 0.0)
    offset, prediction = micro_batch(room, tmp_path, 0.3)
    more = offset.noise - plain.noise
    assert more.std((2, 3)).max() < 1e-6 < more.std()
    assert torch.equal(offset.clean, plain.clean)
    noisy, target = prediction.noised(offset.clean, offset.noise, offset.timestep)
    assert torch.equal(offset.x, noisy) and torch.equal(offset.target, target)


@pytest.mark.parametrize(
    "more", [{"noise_offset": 0.1}, {"objective": {"name": "denoising", "min_snr": GAMMA}}]
)
def test_both_change_the_training_and_no_neighbour_does(diffusion, tmp_path, more):
    room = diffusion
    train_pack(room.pack(room.config(), tmp_path / "off", ["0-1"]), quiet)
    train_pack(room.pack(room.config(**more), tmp_path / "on"), quiet)
    train_pack(room.pack(room.config(**more), tmp_path / "alone", ["0-1"]), quiet)
    on, off, alone = (weights(tmp_path / name, "0-1") for name in ("on", "off", "alone"))
    assert any(not torch.equal(on[key], off[key]) for key in on)
    assert_same(on, alone)
    assert training_inputs(room.config(**more)) != training_inputs(room.config())


def test_off_is_no_part_of_the_digest(room):
    knobs = training_inputs(room.config())["knobs"]
    assert "noise_offset" not in knobs and "objective" not in knobs
    assert DenoisingKnobs().min_snr is None


def test_min_snr_of_a_flow_is_refused(room, diffusion):
    asked = {"objective": {"name": "denoising", "min_snr": GAMMA}}
    check_finetune(diffusion.config(**asked))
    with pytest.raises(ConfigError, match=r"rectified flow.*Fix: leave min_snr out"):
        check_finetune(room.config(**asked))
    base = SimpleNamespace(prediction=Prediction("flow_prediction", 1000, None))
    zero = torch.zeros(1, 1, 1, 1)
    batch = SimpleNamespace(predicted=SimpleNamespace(raw=zero), target=zero)
    with pytest.raises(ConfigError, match="rectified flow"):
        OBJECTIVES["denoising"].losses(
            batch, SimpleNamespace(base=base), DenoisingKnobs(min_snr=GAMMA)
        )


def test_gsure_refuses_offset_noise(room):
    config = room.config(objective="gsure", noise_offset=0.1)
    dataset = config.dataset.model_copy(update={"noise": 0.1})
    config = config.model_copy(update={"dataset": dataset})
    with pytest.raises(ConfigError, match=r"finetune\.noise_offset=0"):
        OBJECTIVES["gsure"].check(config, OBJECTIVES["gsure"].Knobs())
