"""The Diffusion Classifier: its stages, its margins, its columns, what it costs and refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.generators.recipe import recipe_of
from raysynth.groups.prompts import spoken
from raysynth.models.condition import Condition
from raysynth.models.likelihood import noise_of, step_errors
from raysynth.models.prediction import Predicted, Prediction
from raysynth.planning import costs, sizes
from raysynth.scoring.judged import judged
from raysynth.scoring.scorer import SCORERS, evaluations_of
from raysynth.scoring.scorers.diffusion_classifier import DiffusionClassifierKnobs as Knobs
from raysynth.synthesis.actor import Synthesizer
from raysynth.synthesis.checks import check_synthesis
from raysynth.synthesis.task import Task
from tests.synthesis.conftest import GROUPS, planned

ALL = {"stages": (8,), "keep": (1,)}


class Errs:
    """A network whose mean squared error is what is written for (condition, timestep)."""

    def __init__(self, errors: Any) -> None:
        self.errors = torch.as_tensor(errors).sqrt()
        self.base = SimpleNamespace(prediction=Prediction("flow_prediction", 1000, None))
        self.clean, self.rows = torch.zeros(1, 1, 2, 2), 0

    def __call__(self, x: Any, timestep: Any, told: Condition) -> Predicted:
        self.rows += len(x)
        k = (timestep / 1000 * self.errors.shape[1]).long()
        wrong = self.errors[told["number"], k].view(-1, 1, 1, 1)
        noise = x / (timestep / 1000).view(-1, 1, 1, 1)  # the clean image is zero
        return Predicted(self.base.prediction, x, timestep, noise + wrong)


def judge(errors: Any, knobs: Knobs, own: int | None) -> tuple[int, float, int]:
    network: Any = Errs(errors)
    told = Condition({"number": torch.arange(len(network.errors))})
    noise = torch.randn(1, knobs.timesteps, 1, 2, 2)
    mine = None if own is None else torch.tensor([own])
    found = judged(network, network.clean, told, noise, knobs.times(), knobs.keep, mine)
    return int(found.group), float(found.margin), network.rows


def test_stages_look_at_even_timesteps_as_theirs_do():
    assert Knobs().times() == [[2, 6], [0, 1, 3, 4, 5, 7]]
    assert Knobs(timesteps=10, stages=(3,), keep=(1,)).times() == [[1, 4, 7]]
    three = Knobs(timesteps=8, stages=(1, 4, 8), keep=(3, 2, 1))
    assert three.times() == [[4], [1, 3, 5, 7], [0, 2, 6]]


ERRORS = [
    [3.0, 3, 1, 3, 3, 3, 1, 3],  # looks best at first, is worst in the end
    [2.0, 2, 2, 2, 2, 2, 2, 2],
    [1.0, 1, 3, 1, 1, 1, 3, 1],
    [9.0, 9, 9, 9, 9, 9, 9, 9],
]


def test_all_groups_at_all_timesteps():
    assert judge(ERRORS, Knobs(**ALL), 1) == (2, pytest.approx(1.5 - 2.0), 32)
    assert judge(ERRORS, Knobs(**ALL), None) == (2, pytest.approx(0.5), 32)


def test_the_own_group_goes_on_and_the_best_rivals_do():
    group, margin, rows = judge(ERRORS, Knobs(), 1)
    assert (group, margin) == (1, pytest.approx(2.5 - 2.0)) and rows == 4 * 2 + 2 * 6
    group, margin, _ = judge(ERRORS, Knobs(), 3)
    assert (group, margin) == (0, pytest.approx(2.5 - 9.0)), "the worst one, but its own"
    assert judge(ERRORS, Knobs(), None)[:2] == (1, pytest.approx(0.5)), "nobody's: the best two"
    assert judge(ERRORS, Knobs(keep=(3, 1)), None)[:2] == (2, pytest.approx(0.5))


@pytest.mark.parametrize("groups", [2, 4, 9])
@pytest.mark.parametrize("knobs", [Knobs(), Knobs(**ALL), Knobs(keep=(3, 1))])
def test_evaluations_are_those_that_are_made(groups, knobs):
    errors = np.random.default_rng(0).random((groups, 8), np.float32) + 0.1
    part: Any = SCORERS["diffusion_classifier"]
    assert judge(errors, knobs, 0)[2] == part.evaluations(groups, knobs)


@pytest.fixture
def actor(make_config, clusters_folder):
    """An actor that judges, and specs."""
    scorers = ["clip", "copies", {"name": "diffusion_classifier", **ALL}]
    config = make_config(generator="vanilla", synthesis={"scorers": scorers})
    specs = planned(config, [], GROUPS, [300, 4, 4, 300])
    return Synthesizer(Task.of(config, GROUPS, "", (), clusters_folder)), specs.take(
        list(range(0, 48, 8))
    )


def test_candidates_are_judged_by_their_latents_whatever_the_batch(actor):
    synthesizer, specs = actor
    rows = synthesizer(specs)
    assert rows.schema.field("dc_margin").type == "float" and "dc_group" in rows.column_names
    alone = synthesizer(specs.slice(4, 1))
    assert alone["dc_margin"][0].as_py() == pytest.approx(rows["dc_margin"][4].as_py(), abs=1e-5)
    sampler = synthesizer.sampler
    latents = sampler.denoise(sampler.prepare(specs))
    scoring = sampler.score.scoring
    texts = [spoken(scoring.prompts, GROUPS, g, token="") for g in range(4)]
    seeds = [str(seed) for seed in specs["seed"].to_pylist()]
    noise = noise_of(seeds, range(8), latents.shape[1:])
    told, shares = scoring.denoiser.base.condition(texts), (torch.arange(8) + 0.5) / 8
    with torch.no_grad():
        errors = step_errors(scoring.denoiser, latents, told, shares, noise).mean(-1).numpy()
    group = specs["group"].to_numpy()
    own = errors[np.arange(6), group]
    others = np.where(np.eye(4, dtype=bool)[group], np.inf, errors).min(1)
    assert np.allclose(rows["dc_margin"].to_numpy(), others - own, atol=1e-5)
    assert rows["dc_group"].to_pylist() == errors.argmin(1).tolist()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ("stages: [8, 2]", r"stages: got \[8, 2\] of timesteps=8, expected rising"),
        ("stages: [2, 16]", r"expected rising numbers up to that\. Fix"),
        ("keep: [2, 2]", r"keep: got \[2, 2\] .* the last of them 1\. Fix"),
        ("keep: [1]", r"expected as many"),
        ("keep: [1, 1]", r"expected 2 or more before the last stage"),
        ("power: 3", r"power"),
    ],
)
def test_stages_that_make_no_sense_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"synthesis.scorers=[{{name: diffusion_classifier, {knobs}}}]"])


def test_prompts_that_tell_groups_not_apart_are_refused():
    scorers = "synthesis.scorers=[clip, copies, diffusion_classifier]"
    config = load_config(None, ["generator=vanilla", scorers])
    check_synthesis(config)
    config = load_config(None, ["generator=lora", "prompts.template=a {token} {label}", scorers])
    with pytest.raises(ConfigError, match=r"got prompts\.template='a \{token\} \{label\}', .*Fix"):
        check_synthesis(config)


def test_a_plan_counts_its_evaluations():
    shape, images = sizes.base_shape(load_config(), []), sizes.Images({}, 4, 800, 600, 32, 32, 32)
    found = {}
    for scorers in ("clip, copies", "clip, copies, diffusion_classifier"):
        config = load_config(None, [f"synthesis.scorers=[{scorers}]", "synthesis.colours=drawn"])
        recipes = {config.generator: recipe_of(config)}
        found[scorers] = costs.of_synthesis(config, costs.Sized(images, shape, recipes, {})).flops
        assert evaluations_of(config.synthesis.scorers, 4) == (20 if "diff" in scorers else 0)
    plain, judging = found.values()
    assert "scoring" not in plain and judging["generation"] == plain["generation"]
    assert judging["scoring"] == pytest.approx(plain["generation"] * 20 / 7), "7 are drawn with"
