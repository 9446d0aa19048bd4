"""What a network says, in terms of noise, clean image and velocity: as diffusers' schedulers do."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import FAMILIES, USUAL
from raysynth.models.prediction import Predicted, Prediction, prediction_of


class Says:
    """A network that says what it is told to, and keeps what it was given."""

    dtype = torch.float32

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw
        self.given: Any = None

    def __call__(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool):
        self.given = (x, t, encoder_hidden_states)
        return (self.raw,)


def predicted(prediction: Prediction, x: Tensor, t: Tensor, raw: Tensor) -> Predicted:
    base: Any = SimpleNamespace(family=FAMILIES[USUAL], prediction=prediction, autocast=nullcontext)
    told = Condition({"states": torch.zeros(len(x), 2, 3)})
    return Denoiser(base, Says(raw))(x, t, told)


seeds, steps = st.integers(0, 2**31), st.integers(0, 999)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, step=steps)
def test_a_perfect_prediction_gives_noise_image_and_velocity_back(kind, seed, step):
    scheduler = DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear")
    prediction = prediction_of(scheduler)
    dice = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=dice, dtype=torch.float64).unbind(0)
    t = torch.tensor([step, 999 - step, 500])
    x, target = prediction.noised(clean, noise, t)
    said = predicted(prediction, x, t, target)
    # The first step's noise is 3 % of the image: what is divided by it loses digits.
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(said.clean.double(), clean, **near)
    torch.testing.assert_close(said.noise.double(), noise, **near)
    theirs = scheduler.get_velocity(clean, noise, t)
    torch.testing.assert_close(said.velocity.double(), theirs.double(), **near)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@settings(max_examples=10, deadline=None)
@given(seed=seeds, step=st.integers(0, 49))
def test_any_prediction_is_read_as_a_scheduler_reads_it(kind, seed, step):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(50)
    t = scheduler.timesteps[step]
    x, raw = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed)).unbind(0)
    said = predicted(prediction_of(scheduler), x, t, raw)
    theirs = scheduler.step(raw, t, x).pred_original_sample
    torch.testing.assert_close(said.clean, theirs, rtol=1e-4, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_a_flow_s_velocity_leads_from_the_image_to_the_noise(seed):
    flow = Prediction("flow_prediction", 1000, None)
    dice = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=dice).unbind(0)
    t = torch.tensor([1.0, 400.0, 999.0])
    x, target = flow.noised(clean, noise, t)
    said = predicted(flow, x, t, target)
    torch.testing.assert_close(said.clean, clean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(said.noise, noise, rtol=1e-5, atol=1e-5)
    assert torch.equal(said.velocity, noise - clean)


def test_a_batch_is_cut_into_parts_that_stay_predictions():
    prediction = prediction_of(DDPMScheduler())
    x, raw = torch.randn(2, 4, 1, 2, 2).unbind(0)
    for t in (torch.tensor(7), torch.tensor([7, 7, 300, 300])):
        whole = predicted(prediction, x, t, raw)
        parts = whole.parts(2)
        assert torch.equal(torch.cat([part.clean for part in parts]), whole.clean)


def test_the_network_is_given_its_own_precision_and_the_answer_is_float32():
    network = Says(torch.zeros(2, 1, 2, 2, dtype=torch.bfloat16))
    network.dtype = torch.bfloat16
    base: Any = SimpleNamespace(family=FAMILIES[USUAL], prediction=None, autocast=nullcontext)
    x = torch.full((2, 1, 2, 2), 1 / 3)
    said = Denoiser(base, network)(x, torch.tensor(1), Condition({"states": torch.zeros(2, 1, 1)}))
    assert [given.dtype for given in (network.given[0], network.given[2])] == [torch.bfloat16] * 2
    assert said.raw.dtype == torch.float32 and torch.equal(said.x, x)
