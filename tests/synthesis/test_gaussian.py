"""The Gaussian that images begin at: its moments, whose spread counts, where steps then are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raysynth.errors import ConfigError, StageError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.factors import exact, spread_factors
from raysynth.synthesis.gaussian import BORROWED, gaussians_of, keep, read, shares_of
from raysynth.synthesis.schedule import SCHEDULES, Sought
from raysynth.synthesis.schedules.even import even_levels
from raysynth.synthesis.solver import build_solver, check_solver, noise_of
from raysynth.synthesis.task import Drawing
from raysynth.synthesis.way import Way
from tests.synthesis.conftest import GROUPS
from tests.synthesis.test_schedule import BASES

ANIMALS, PLACES = ("cat", "dog", "cow"), ("indoors", "outdoors")
THREE = Groups(ANIMALS, PLACES, ANIMALS, PLACES)


def dice(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in range(count)]


def test_a_group_has_its_own_spread_and_borrows_what_it_is_not_sure_of():
    counts = np.array([2000, 64, 0, 2000, 1, 16])
    shares = shares_of(counts, THREE)
    assert shares.sum(axis=1) == pytest.approx(np.ones(6))
    assert shares[1, 1] == 64 / (64 + BORROWED) == 0.5
    # cat outdoors: cats indoors, dogs and cows outdoors, each by how sure its own spread is.
    lent = np.array([2000 / 2064, 0, 0, 2000 / 2064, 0, 16 / 80])
    assert shares[1] == pytest.approx(0.5 * lent / lent.sum() + 0.5 * np.eye(6)[1])
    assert shares[2, 2] == 0 and shares[4, 4] == 0, "none of its own, or one, which has no spread"
    nobody = shares_of(np.array([0, 0, 0, 0, 0, 30]), THREE)
    assert nobody[5, 5] == 1 and nobody[0, 5] == 1, "where none is akin, any"


def test_drawn_latents_have_the_mean_and_the_covariance_of_the_images():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 3], 400)
    wide = rng.standard_normal((800, 6)) @ rng.standard_normal((6, 6)) + group[:, None]
    found = gaussians_of(torch.from_numpy(wide).float().view(800, 1, 2, 3), group, GROUPS)
    mean, factor = found.of(0)
    assert np.allclose(mean, wide[:400].mean(0), atol=1e-5)
    own, other = np.cov(wide[:400].T), np.cov(wide[400:].T)
    share = float(found.shares[0, 0])
    assert share == 400 / (400 + BORROWED), "the rest is any group's, as none is akin"
    assert np.allclose(factor.T @ factor, share * own + (1 - share) * other, atol=1e-4)
    drawn = found.draw([0] * 4000, dice(4000)).flatten(1).numpy()
    assert np.allclose(drawn.mean(0), mean, atol=0.15)
    assert np.allclose(np.cov(drawn.T), factor.T @ factor, atol=0.1 * np.abs(own).max())


def test_gaussians_are_kept_and_read_again(tmp_path):
    latents = torch.randn(8, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = gaussians_of(latents, np.arange(8) % 4, GROUPS)
    keep(found, f"{tmp_path}/some.safetensors")
    again = read(f"{tmp_path}/some.safetensors")
    assert torch.allclose(again.draw([1, 2], dice(2)), found.draw([1, 2], dice(2)), atol=5e-3)
    (tmp_path / "some.safetensors").write_bytes(b"cut")
    with pytest.raises(StageError, match=r"some\.safetensors cannot be read"):
        read(f"{tmp_path}/some.safetensors")


def test_an_image_depends_on_its_seed_and_its_group_alone(make_config, lora_folder, tmp_path):
    from raysynth.adapters.record import read_adapters

    name = read_adapters(lora_folder)[0].name
    config = make_config(synthesis={"gaussian_above": 0.8, "steps": 2})
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((40, 4, 8, 8))).float()
    latents[::4] += 3  # of group 0
    path = f"{tmp_path}/gaussians.safetensors"
    keep(gaussians_of(latents, np.arange(40) % 4, GROUPS), path)
    drawing = Drawing.of(config, way=Way((0.8, 0.4), path))
    generate = ImageGenerator(drawing, lora_folder, [name])

    def images(seeds: list[int], groups: list[int]) -> np.ndarray:
        count = len(seeds)
        words = ["a photo of a coat"] * count
        return generate(words, [""] * count, [name] * count, seeds, groups=groups).astype(int)

    together = images([5, 6, 7], [0, 1, 0])
    assert np.abs(together[2:] - images([7], [0])).max() <= 1
    assert np.abs(together[2:] - images([7], [1])).max() > 4
    with pytest.raises(ValueError, match=r"levels=None with synthesis\.schedule=even"):
        ImageGenerator(Drawing.of(config), lora_folder, [name])


PAIRS = [
    (name, base)
    for name in SCHEDULES
    for base in BASES
    if BASES[base].config.prediction_type in SCHEDULES[name].predictions
]


@pytest.mark.parametrize(("name", "base"), PAIRS)
def test_steps_begin_where_they_are_told_to(name, base):
    noise = noise_of(BASES[base])
    noise = type(noise)(noise.timesteps, noise.ratios, 0.7)
    plain = exact(build_solver("dpmsolver++", BASES[base]))
    spectrum = SimpleNamespace(
        variances=np.array([8.0, 0.3]), counts=np.array([4, 90]), labels=np.zeros(2)
    )
    part = SCHEDULES[name]
    sought = Sought(4, noise, lambda a, v: spread_factors(plain, noise, a, v), lambda: spectrum)
    levels = part.levels(sought, part.Knobs())
    assert levels[0] == pytest.approx(0.7, abs=2e-3) and len(levels) == 4
    assert (np.diff(levels) < 0).all() and levels[-1] >= 0


def test_a_gaussian_that_steps_begin_at_keeps_its_spread():
    """Of pure noise four even steps keep less of a wide direction."""
    noise, solver = noise_of(BASES["flow"]), exact(build_solver("dpmsolver++", BASES["flow"]))
    midway = type(noise)(noise.timesteps, noise.ratios, 0.8)
    wide = np.array([60.0])
    (begun,) = spread_factors(solver, midway, even_levels(midway.top, 4)[None], wide)
    (whole,) = spread_factors(solver, noise, even_levels(noise.top, 4)[None], wide)
    assert 0.9 < begun < 1.05 and whole < 0.6


def test_what_begins_at_a_gaussian(make_config):
    def asked(generator: str, **synthesis: object) -> bool:
        config = make_config(generator=generator, synthesis=synthesis)
        return recipe_of(config).midway

    assert asked("lora", gaussian_above=None) and asked("shared", gaussian_above=0.5)
    assert not asked("lora", gaussian_above=1.0)
    assert not asked("edit", gaussian_above=0.5), "begins at real images"
    assert not asked("vanilla", gaussian_above=0.5), "shows what the base draws by itself"
    assert not asked("lora", gaussian_above=None, solver="ddim")


def test_it_enters_the_digest_of_what_begins_there(make_config):
    def told(generator: str, above: float | None) -> tuple[object, ...]:
        synthesis = {"gaussian_above": above, "steps": None}
        inputs = synthesis_inputs(make_config(generator=generator, synthesis=synthesis))
        return inputs.get("begins"), inputs["knobs"]["steps"]

    assert told("lora", 1.0) == (None, 6), "what earlier versions drew"
    assert told("lora", 0.7) == (0.7, 4) and told("lora", None) == (0.8, 4)
    assert {told(name, above) for name in ("edit", "vanilla") for above in (0.7, 1)} == {(None, 6)}


def test_a_solver_that_cannot_begin_midway_is_refused(make_config):
    config = make_config(synthesis={"gaussian_above": 0.8, "solver": "ddim"})
    with pytest.raises(ConfigError, match=r"gaussian_above=0\.8: synthesis\.solver=ddim"):
        check_solver(config)
    usual = make_config(synthesis={"gaussian_above": None, "solver": "ddim"})
    assert recipe_of(usual).begins == 1
