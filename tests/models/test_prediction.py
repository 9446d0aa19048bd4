"""Noise and target of every prediction type, against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

from raysynth.errors import ModelError
from raysynth.models.prediction import Prediction, prediction_of

CLEAN = torch.full((1, 1, 1, 1), 2.0)
NOISE = torch.full((1, 1, 1, 1), -1.0)
HALF = torch.tensor([0.64, 0.36])
"""Cumulative alphas of two timesteps: signal .8 and .6, spread .6 and .8."""


@pytest.mark.parametrize(
    ("prediction", "target"),
    [("epsilon", -1.0), ("sample", 2.0), ("v_prediction", 0.6 * -1 - 0.8 * 2)],
)
def test_diffusion(prediction, target):
    known = Prediction(prediction, 2, HALF)
    noisy, wanted = known.noised(CLEAN, NOISE, torch.tensor([1.0]))
    assert noisy.item() == pytest.approx(0.6 * 2 + 0.8 * -1)
    assert wanted.item() == pytest.approx(target)


def test_rectified_flow():
    known = Prediction("flow_prediction", 1000, None)
    noisy, wanted = known.noised(CLEAN, NOISE, torch.tensor([250.0]))
    assert noisy.item() == pytest.approx(0.75 * 2 + 0.25 * -1)
    assert wanted.item() == -3.0


def test_timesteps_follow_the_paper():
    uniform = torch.tensor([1e-6, 0.25, 0.5, 1 - 1e-6])
    diffusion = Prediction("epsilon", 1000, torch.ones(1000)).draw(uniform)
    assert diffusion.tolist() == [0, 250, 500, 999]
    flow = Prediction("flow_prediction", 1000, None).draw(uniform)
    assert flow[2] == 500
    assert flow[1].item() == pytest.approx(1000 / (1 + 2.71828 ** (0.67449)), rel=1e-4)
    assert 0 < flow[0] < flow[3] < 1000


def test_stable_diffusion_schedule_is_read_from_the_scheduler():
    scheduler = PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    known = prediction_of(scheduler)
    assert known.kind == "epsilon"
    assert known.alphas[0].item() == pytest.approx(1 - 0.00085)


def test_flow_base_is_recognised():
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0
    )
    assert prediction_of(scheduler) == Prediction("flow_prediction", 1000, None)


def test_added_noise_equals_the_schedulers():
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    clean, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    t = torch.tensor([3, 500, 999])
    noisy, target = prediction_of(scheduler).noised(clean, noise, t.float())
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, t))
    torch.testing.assert_close(target, scheduler.get_velocity(clean, noise, t))


def test_unknown_prediction_is_refused():
    scheduler = DDPMScheduler()
    scheduler.register_to_config(prediction_type="score")
    with pytest.raises(ModelError, match="score"):
        prediction_of(scheduler)
