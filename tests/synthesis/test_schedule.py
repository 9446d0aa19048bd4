"""Schedules: their levels, what reaches the network, the fit to a spectrum, what is refused."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import AysSchedules

from raysynth.errors import ConfigError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.models.condition import Condition
from raysynth.models.family import FAMILIES, USUAL
from raysynth.models.prediction import Predicted, prediction_of
from raysynth.synthesis.denoise import Edited, denoise
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.factors import exact, spread_factors
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.levels import fallen
from raysynth.synthesis.noise import Spectrum
from raysynth.synthesis.schedule import SCHEDULES, Sought
from raysynth.synthesis.schedules.matched import placed, weights_of
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.solver import build_solver, check_solver, lay_out, noise_of
from raysynth.synthesis.task import Drawing
from raysynth.synthesis.way import Way

STABLE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
"""Stable Diffusion's noise schedule."""
BASES = {
    "flow": DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    "epsilon": DDPMScheduler(**STABLE),
    "velocity": DDPMScheduler(**STABLE, prediction_type="v_prediction"),
}
LEVELS = {
    "flow": [0.999, 0.9683, 0.8871, 0.5894, 0.2443, 0.0341],
    "diffusion": [0.999, 0.85, 0.736, 0.545, 0.343, 0.024],
}


def levels_for(base: str) -> np.ndarray:
    return np.array(LEVELS["flow" if base == "flow" else "diffusion"])


def sought(base: str, steps: int, solver: str = "dpmsolver++", spectrum: Any = None) -> Sought:
    noise, plain = noise_of(BASES[base]), exact(build_solver(solver, BASES[base]))
    return Sought(steps, noise, lambda at, of: spread_factors(plain, noise, at, of), spectrum)


def found(name: str, base: str, steps: int, **knobs: Any) -> np.ndarray:
    part = SCHEDULES[name]
    return part.levels(sought(base, steps), part.Knobs(**knobs))


class Gaussian:
    """The exact denoiser of images with variance 4; notes what it is asked."""

    variance = 4.0

    def __init__(self, scheduler: Any) -> None:
        self.base = SimpleNamespace(device=torch.device("cpu"), family=FAMILIES[USUAL])
        self.model = SimpleNamespace(dtype=torch.float32)
        self.prediction, self.asked = prediction_of(scheduler), []

    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, _: Condition) -> Predicted:
        self.asked.append(timestep)
        a, b = self.prediction.levels(timestep)
        clean = self.variance * a / (a * a * self.variance + b * b) * x
        noise = (x - a * clean) / b
        said = {"flow_prediction": noise - clean, "epsilon": noise}
        raw = said.get(self.prediction.kind, a * noise - b * clean)
        return Predicted(self.prediction, x, timestep, raw)


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc"])
@pytest.mark.parametrize("base", BASES)
def test_levels_reach_the_network_and_the_solver(base, solver):
    """What is drawn then has the spread that the linear map says."""
    at, network = levels_for(base), Gaussian(BASES[base])
    noise = torch.linspace(-2, 2, 9).view(-1, 1, 1, 1)
    condition, built = (
        Condition({"states": torch.zeros(9, 1, 1)}),
        build_solver(solver, BASES[base]),
    )
    for _ in range(2):  # a solver is used again and again
        network.asked.clear()
        images = denoise(
            lambda copies: network, built, noise, [], condition, guide_of((), 1.0), at.tolist()
        )
        assert np.allclose(torch.stack(network.asked), at * 1000)
        assert len(built.sigmas) == 7 and built.sigmas[-1] == 0
        slope = float(images[0, 0, 0, 0] / noise[0, 0, 0, 0])
        assert torch.allclose(images, slope * noise, atol=1e-5)
        factor = sought(base, 6, solver).factors(at[None], np.array([4.0]))
        assert abs(slope) / 2 == pytest.approx(factor[0, 0], rel=1e-4)


@pytest.mark.parametrize("solver", ["dpmsolver++", "unipc"])
@pytest.mark.parametrize("base", ["flow", "epsilon"])
def test_many_candidates_at_once_are_each_what_the_solver_makes_of_them(base, solver):
    variances, at = np.array([13.7, 1.0, 0.05]), levels_for(base)
    candidates = np.stack([at, at**1.5, np.linspace(0.999, 0.1, 6)])
    together = sought(base, 6, solver).factors(candidates, variances)
    for levels, expected in zip(candidates, together, strict=True):
        alone = exact(build_solver(solver, BASES[base]))
        noise = noise_of(BASES[base])
        lay_out(alone, 6)  # its own state first
        alone.sigmas = torch.tensor(
            [*(levels if base == "flow" else noise.ratio(levels)), 0.0], dtype=torch.float32
        )
        alone.set_begin_index(0)
        x = torch.ones(3, 1, dtype=torch.float64)
        for step, timestep in enumerate(alone.timesteps):
            a, b = (torch.from_numpy(s)[step] for s in noise.shares(levels))
            v = torch.from_numpy(variances)[:, None]
            x = alone.step(v * a / (a * a * v + b * b) * x, timestep, x, return_dict=False)[0]
        assert np.allclose(x[:, 0].abs() / np.sqrt(variances), expected, rtol=1e-3)


@pytest.mark.parametrize("base", ["flow", "epsilon"])
def test_an_edit_at_full_strength_begins_at_the_first_level_and_goes_on_from_any(base):
    clean, noise, at = torch.full((2, 1, 4, 4), 3.0), torch.ones(2, 1, 4, 4), levels_for(base)
    solver, half = build_solver("dpmsolver++", BASES[base]), torch.zeros(2, 1, 4, 4)
    half[..., :2] = 1.0
    network, told = Gaussian(BASES[base]), Condition({"states": torch.zeros(2, 1, 1)})
    given: list[torch.Tensor] = []

    def seen(x: torch.Tensor, *rest: Any) -> Predicted:
        given.append(x)
        return network(x, *rest)

    seen.base, seen.model = network.base, network.model
    edited = Edited(clean, 1.0, half)
    images = denoise(
        lambda copies: seen, solver, noise, [], told, guide_of((), 1.0), at.tolist(), edited
    )
    signal, spread = noise_of(BASES[base]).shares(at)
    assert len(given) == 6
    for x, a, b in zip(given, signal, spread, strict=True):
        assert torch.allclose(x[..., 2:], torch.tensor(3 * a + b).float(), atol=1e-4)
    assert torch.equal(images[..., 2:], clean[..., 2:]), "outside the mask"
    assert (images - clean)[..., :2].abs().min() > 0.1


def test_even_steps_lose_what_was_measured():
    """Six keep .55 of a direction of deviation 8 and .90 of one of .5; shifted by 3 .86 and .62."""
    even, shifted = np.linspace(0.999, 0, 7)[:-1], found("shifted", "flow", 6)
    factors = sought("flow", 6).factors(np.stack([even, shifted]), np.array([64.0, 0.25]))
    assert np.allclose(factors, [[0.55, 0.90], [0.86, 0.62]], atol=0.01)


def test_shifted_is_diffusers_flow_shift():
    shifted = DPMSolverMultistepScheduler.from_config(BASES["flow"].config, flow_shift=3.0)
    shifted.set_timesteps(6)
    assert np.allclose(found("shifted", "flow", 6), shifted.sigmas[:-1], atol=1e-6)
    assert np.allclose(found("shifted", "flow", 6, shift=1.0), np.linspace(0.999, 0, 7)[:-1])


def test_karras_is_diffusers():
    theirs = DPMSolverMultistepScheduler.from_config(
        BASES["epsilon"].config, use_karras_sigmas=True
    )
    theirs.set_timesteps(10)
    noise = noise_of(BASES["epsilon"])
    assert np.allclose(noise.ratio(found("karras", "epsilon", 10)), theirs.sigmas[:-1], rtol=1e-3)


def test_ten_aligned_steps_are_the_published_ones():
    at = noise_of(BASES["epsilon"]).trained(found("align_your_steps", "epsilon", 10))
    published = np.array(AysSchedules["StableDiffusionTimesteps"])
    assert np.abs(at * 1000 - published).max() <= 1
    five = found("align_your_steps", "epsilon", 5) * 1000
    assert np.abs(five - published[::2]).max() <= 1, "every second one"


@pytest.mark.parametrize("base", ["flow", "epsilon"])
def test_noise_levels_and_ratios_are_one_another(base):
    noise, at = noise_of(BASES[base]), np.array([0.999, 0.7, 0.3, 0.02])
    assert np.allclose(noise.level(noise.ratio(at)), at)
    signal, spread = noise.shares(at)
    assert np.allclose(spread / signal, noise.ratio(at))
    if base == "epsilon":
        assert np.allclose(signal**2, BASES[base].alphas_cumprod[[999, 700, 300, 20]], rtol=1e-4)
        assert np.allclose(noise.trained(at + 2e-4), at)


def made_up(labels: int = 0) -> Spectrum:
    """Few broad directions and many fine ones: as latents have them."""
    variances = np.geomspace(0.05, 14.0, 16)
    counts = np.geomspace(300, 1, 16).round()
    return Spectrum(variances, counts, np.eye(16)[labels])


@pytest.mark.parametrize(
    ("base", "solver", "bar"),
    [("flow", "dpmsolver++", 0.02), ("flow", "unipc", 0.02), ("epsilon", "dpmsolver++", 0.025)],
)
def test_six_matched_levels_keep_every_directions_spread(base, solver, bar):
    part, spectrum = SCHEDULES["matched"], made_up()
    asked = sought(base, 6, solver, lambda: spectrum)
    levels = part.levels(asked, part.Knobs())
    assert fallen(levels.tolist(), SynthesisConfig()) and levels[0] == pytest.approx(0.999)
    assert np.abs(asked.factors(levels[None], spectrum.variances)[0] - 1).max() < bar
    assert np.array_equal(levels, part.levels(asked, part.Knobs())), "the same at every call"


def test_three_matched_levels_serve_what_has_the_weight():
    part = SCHEDULES["matched"]
    misses = []
    for bundle in (3, 15):
        asked = sought("flow", 3, spectrum=lambda bundle=bundle: made_up(bundle))
        levels = part.levels(asked, part.Knobs(labels=1.0))
        misses.append(np.abs(np.log(asked.factors(levels[None], made_up().variances)[0])))
    assert misses[0][3] < misses[1][3] and misses[1][15] < misses[0][15]


def test_weights_are_half_by_variance_half_even_and_a_share_by_labels():
    spectrum = Spectrum(np.array([9.0, 1.0]), np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    assert np.allclose(weights_of(spectrum, 0.0), [0.5 * 0.75 + 0.5 * 0.25, 0.5])
    assert np.allclose(weights_of(spectrum, 0.5), [0.25, 0.75])
    none = Spectrum(spectrum.variances, spectrum.counts, np.zeros(2))
    assert np.allclose(weights_of(none, 0.5), weights_of(none, 0.0)), "no label to tell apart"


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_levels_fall_however_many_there_are(steps):
    falls = np.full((2, min(steps - 1, 6)), 0.3)
    levels = placed(falls, steps, noise_of(BASES["flow"]))
    assert levels.shape == (2, steps) and np.allclose(levels[:, 0], 0.999)
    assert (np.diff(levels, axis=1) < 0).all() and levels.min() > 0.001


def test_levels_that_do_not_fall_are_refused():
    config = SynthesisConfig.model_validate({"schedule": "karras", "steps": 3})
    with pytest.raises(ConfigError, match=r"karras: synthesis.steps=3 lie at .*Fix: fewer"):
        fallen([0.9, 0.5, 0.5], config)
    assert fallen([0.9, 0.5, 0.0], config) == (0.9, 0.5, 0.0)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"schedule": "karras"}, r"predict epsilon or v_prediction or sample; base.name predicts"),
        ({"schedule": "align_your_steps"}, r"Fix: synthesis.schedule=even\|matched\|shifted"),
        ({"schedule": "shifted", "solver": "ddim"}, r"solver=ddim: the base model predicts a flow"),
        ({"schedule": "matched", "strength": 0.5}, r"starts its edits at synthesis.strength=0.5"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(make_config, sections, reason):
    generator = "edit" if "strength" in sections else "vanilla"
    with pytest.raises(ConfigError, match=reason):
        check_solver(make_config(generator=generator, synthesis=sections))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "diffusers' EulerDiscreteScheduler, whose"),
        ({"algorithm_type": "sde-dpmsolver++"}, "diffusers' stochastic DPMSolverMultistepSch"),
    ],
)
def test_a_bases_own_solver_that_takes_no_levels_is_refused(make_config, tmp_path, given, reason):
    base = tmp_path / "base"
    shutil.copytree(make_config().base.name, base)
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | given))
    config = make_config(
        base={"name": str(base)}, synthesis={"solver": "base", "schedule": "matched"}
    )
    with pytest.raises(ConfigError, match=reason):
        check_solver(config)
    check_solver(make_config(synthesis={"solver": "base", "schedule": "matched"}))


def test_ddim_takes_no_levels_of_a_model_that_is_not_here_yet(make_config):
    config = make_config(
        base={"name": "owner/model"}, synthesis={"schedule": "karras", "solver": "ddim"}
    )
    with pytest.raises(ConfigError, match=r"DDIMScheduler, whose levels are its own.*dpmsolver"):
        check_solver(config)


def test_a_schedule_enters_the_digest_unless_it_is_the_solvers_own(make_config):
    usual = synthesis_inputs(make_config())["knobs"]
    assert "schedule" not in usual
    assert synthesis_inputs(make_config(synthesis={"schedule": "even"}))["knobs"] == usual
    chosen = {"name": "matched", "labels": 0.5}
    told = synthesis_inputs(make_config(synthesis={"schedule": chosen}))["knobs"]
    assert told == usual | {"schedule": chosen}


def test_levels_that_nobody_settled_are_missed(make_config):
    drawing = Drawing.of(make_config(synthesis={"schedule": "matched"}))
    with pytest.raises(ValueError, match=r"levels=None with synthesis\.schedule=matched"):
        ImageGenerator(drawing, "", ())


def test_images_of_even_levels_are_those_of_the_solver(make_config):
    """Levels that the solver would take by itself, but for timesteps that diffusers cuts off."""

    def images(**synthesis: Any) -> np.ndarray:
        levels = synthesis.pop("levels", None)
        config = make_config(generator="vanilla", synthesis={"steps": 4, **synthesis})
        generate = ImageGenerator(Drawing.of(config, way=Way(levels)), "", ())
        words = ["a photo of a coat on gravel"] * 2
        return generate(words, [""] * 2, [""] * 2, [1, 2]).astype(int)

    shifted = {"schedule": {"name": "shifted", "shift": 1.0}}
    own, given = images(), images(**shifted, levels=(0.999, 0.74925, 0.4995, 0.24975))
    assert np.abs(own - given).max() <= 2
    other = images(**shifted, levels=tuple(found("shifted", "flow", 4)))
    assert np.abs(own - other).max() > 4
