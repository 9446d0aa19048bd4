"""Likelihoods: the same numbers for every prediction type, worked by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.likelihood import (
    ENDS,
    Measure,
    elbo,
    even_shares,
    log_posterior,
    noise_of,
    step_errors,
)
from raysynth.models.prediction import Predicted, Prediction

ALPHAS = torch.tensor([0.99, 0.9, 0.64, 0.36, 0.1])
KINDS = ["epsilon", "v_prediction", "sample", "flow_prediction"]


@dataclass
class Guesses:
    """A network that takes the clean image for what its condition says, whatever it is shown."""

    kind: str
    seen: list[int] = field(default_factory=list)

    @property
    def base(self) -> Any:
        flow = self.kind == "flow_prediction"
        return SimpleNamespace(prediction=Prediction(self.kind, 5, None if flow else ALPHAS))

    def __call__(self, x: Tensor, timestep: Tensor, told: Condition) -> Predicted:
        self.seen.append(len(x))
        signal, spread = self.base.prediction.levels(timestep)
        guess = told["guess"]
        noise = (x - signal * guess) / spread
        raw = {
            "epsilon": noise,
            "sample": guess,
            "v_prediction": signal * noise - spread * guess,
            "flow_prediction": noise - guess,
        }[self.kind]
        return Predicted(self.base.prediction, x, timestep, raw)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares_of(kind: str) -> Tensor:
    """Two levels at which noise per signal is 3 / 4 and 3, of any kind."""
    if kind == "flow_prediction":
        return torch.tensor([3 / 7, 3 / 4])
    return torch.tensor([0.5, 0.9])


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_all_prediction_types_are_one(kind):
    clean, guesses = drawn(3, 2, 4, 4), drawn(2, 2, 4, 4, seed=1)
    told, noise = Condition({"guess": guesses}), drawn(3, 2, 2, 4, 4, seed=2)
    network: Any = Guesses(kind)
    sigma = network.base.prediction.noise_to_signal(network.base.prediction.at(shares_of(kind)))
    torch.testing.assert_close(sigma, torch.tensor([0.75, 3.0]))
    apart = (guesses[None] - clean[:, None]).abs()
    for power in (1, 2):
        wanted = apart.pow(power).flatten(2).mean(2)[..., None]
        given = (network, clean, told, shares_of(kind), noise)
        found = step_errors(*given, how=Measure(power, "clean"))
        torch.testing.assert_close(found, wanted.expand(-1, -1, 2), rtol=1e-4, atol=1e-5)
        found = step_errors(*given, how=Measure(power, "noise"))
        torch.testing.assert_close(found, wanted / sigma**power, rtol=1e-3, atol=1e-5)
        found = step_errors(*given, how=Measure(power))
        level = shares_of(kind) if kind == "flow_prediction" else sigma / (1 + sigma**2).sqrt()
        torch.testing.assert_close(found, wanted / level**power, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 5, None])
def test_images_are_explained_under_the_conditions_asked_for(at_once):
    clean, guesses, noise = drawn(3, 1, 2, 2), drawn(4, 1, 2, 2, seed=1), drawn(3, 2, 1, 2, 2)
    told, shares = Condition({"guess": guesses}), torch.tensor([0.3, 0.9])
    network: Any = Guesses("epsilon")
    whole = step_errors(network, clean, told, shares, noise)
    assert network.seen == [3 * 4 * 2]
    asked = torch.tensor([[0, 3], [2, 1], [3, 3]])
    network.seen.clear()
    some = step_errors(network, clean, told, shares, noise, asked, Measure(at_once=at_once))
    assert max(network.seen) == (at_once or 12) and sum(network.seen) == 12
    torch.testing.assert_close(some, whole.gather(1, asked[..., None].expand(-1, -1, 2)))


def test_noise_belongs_to_the_image_and_the_draw():
    both = noise_of(["a", "b"], range(3), (2, 4))
    assert torch.equal(noise_of(["b"], [2], (2, 4))[0, 0], both[1, 2])
    flat = both.flatten(0, 1).flatten(1)
    assert len({tuple(row) for row in flat.tolist()}) == 6
    many = noise_of(["c"], range(400), (8,))
    assert abs(float(many.mean())) < 0.06 and float(many.std()) == pytest.approx(1, abs=0.05)


def test_the_posterior_weighs_timesteps_and_heeds_the_prior():
    errors = torch.tensor([[[1.0, 9.0], [2.0, 1.0]]])
    weights = torch.tensor([2.0, 0.0])
    found = log_posterior(errors, weights, 3.0).exp()
    assert found[0, 0].item() == pytest.approx(1 / (1 + 2.718281828**-3))
    even = log_posterior(errors, weights, 0.0, torch.tensor([0.2, 0.8])).exp()
    torch.testing.assert_close(even, torch.tensor([[0.2, 0.8]]))
    sure = log_posterior(errors, weights, 3.0, torch.tensor([[0.0, 1.0]])).exp()
    assert sure.tolist() == [[0.0, 1.0]]


def test_the_bound_is_the_divergence_of_the_reverse_steps():
    """KL(q(x_s | x_t, x_0) || q(x_s | x_t, x_0 = guess)) of Ho et al. 2020, eq. 7, added up."""
    clean, guess = drawn(1, 1, 2, 2), drawn(1, 1, 2, 2, seed=1)
    network: Any = Guesses("v_prediction")
    noise = drawn(1, 4, 1, 2, 2, seed=2)
    found = elbo(network, clean, Condition({"guess": guess}), torch.arange(0.1, 1, 0.2), noise)
    total = 0.0
    for before, now in itertools.pairwise(ALPHAS):
        beta = 1 - now / before
        mean = before.sqrt() * beta / (1 - now) * (clean - guess)
        variance = beta * (1 - before) / (1 - now)
        total += float(mean.square().sum() / (2 * variance))
    assert found.shape == (1, 1) and found.item() == pytest.approx(-total, rel=1e-4)


@pytest.mark.parametrize("alphas", [None, torch.linspace(0.999, 0.005, 1000)], ids=["flow", "T"])
def test_even_shares_have_as_many_decibels_between_them(alphas):
    kind = "flow_prediction" if alphas is None else "epsilon"
    prediction = Prediction(kind, 1000, alphas)
    shares = even_shares(prediction, 6)
    decibels = prediction.snr_db(prediction.at(shares))
    ends = prediction.snr_db(prediction.at(torch.tensor(ENDS)))
    torch.testing.assert_close(decibels[[0, -1]], ends, rtol=1e-2, atol=0.05)
    steps = decibels.diff()
    torch.testing.assert_close(steps, steps.mean().expand(6), rtol=0.1, atol=0)


def test_a_bound_of_even_shares_is_near_its_limit_with_few_steps():
    """Of a network that is off by one in the noise at every level: the integral over log-SNR."""
    prediction = Prediction("flow_prediction", 1000, None)

    def denoise(x: Tensor, timestep: Tensor, told: Condition) -> Predicted:
        signal, _ = prediction.levels(timestep)
        return Predicted(prediction, x, timestep, signal.reciprocal() * told["own"])

    network: Any = denoise
    network.base = SimpleNamespace(prediction=prediction)
    clean = torch.zeros(1, 1, 2, 2)  # and no noise either: the velocity's error is 1 / (1-s)
    told, found = Condition({"own": torch.ones(1, 1, 1, 1)}), {}
    for steps in (20, 2000):
        noise = torch.zeros(1, steps, 1, 2, 2)
        found[steps] = elbo(network, clean, told, even_shares(prediction, steps), noise).item()
    limit = 4 * torch.log(torch.tensor(99.0)).item() * 2  # 4 numbers, ln(99^2) each way, by half
    assert found[2000] == pytest.approx(-limit, rel=1e-2)
    assert found[20] == pytest.approx(-limit, rel=0.75)
    even_in_time = torch.linspace(*ENDS, 21)
    noise = torch.zeros(1, 20, 1, 2, 2)
    assert elbo(network, clean, told, even_in_time, noise).item() < -3 * limit


def test_a_bound_may_be_under_the_own_condition_alone():
    clean, guesses, noise = drawn(3, 1, 2, 2), drawn(4, 1, 2, 2, seed=1), drawn(3, 2, 1, 2, 2)
    told, shares = Condition({"guess": guesses}), torch.tensor([0.1, 0.3, 0.9])
    whole = elbo(Guesses("epsilon"), clean, told, shares, noise)  # type: ignore[arg-type]
    own = torch.tensor([[2], [0], [3]])
    some = elbo(Guesses("epsilon"), clean, told, shares, noise, told=own)  # type: ignore[arg-type]
    torch.testing.assert_close(some, whole.gather(1, own))
