"""Cell guidance: the cells, what is moved and what is not, images that keep their own aim."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from raysynth.errors import ConfigError, StageError
from raysynth.generators.recipe import recipe_of
from raysynth.models.prediction import PREDICTIONS, Predicted, Prediction
from raysynth.progress import Progress
from raysynth.synthesis.checks import check_synthesis
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.fits import fits_of, keep, read
from raysynth.synthesis.guidance import Aim, guide_of
from raysynth.synthesis.guidances.cell import CellKnobs, cells_of, moves
from raysynth.synthesis.levels import FILE, FITS, settled_way
from raysynth.synthesis.shards import read_shards
from raysynth.synthesis.specs import aim_of
from raysynth.synthesis.stage import run_synthesis
from raysynth.synthesis.task import Drawing
from raysynth.synthesis.way import Way
from tests.synthesis.conftest import CLUSTERS, COUNTS, GROUPS, planned, records
from tests.synthesis.test_guidance import chosen
from tests.synthesis.test_levels import real, write_real
from tests.synthesis.test_sources import PROMPT

__all__ = ["real"]
NAMES = tuple(f"{group}-{cluster}" for group, cluster in CLUSTERS)
CELLS = {"name": "cell", "cells": 3, "dimensions": 5, "interval": [0.0, 1.0]}
FEW = CELLS | {"cells": 2}


def clouds(each: int = 40, size: int = 12) -> tuple[torch.Tensor, np.ndarray]:
    """[3 each, 3, 2, 2] latents: three clouds far apart around a mean of 5; and their numbers."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((size, size)))[0][:3] * 20
    number = np.repeat(np.arange(3), each)
    latents = 5 + centres[number] + rng.standard_normal((3 * each, size))
    return torch.from_numpy(latents).float().view(-1, 3, 2, 2), number


def aimed(latents: torch.Tensor, group: np.ndarray, **knobs: Any) -> tuple[Any, dict[str, Any]]:
    guide = guide_of(chosen(CELLS | knobs), 1.0)
    return guide, fits_of(guide, latents, group, GROUPS.count, 0)


def test_cells_are_those_that_real_images_form():
    latents, number = clouds()
    found = cells_of(latents.flatten(1), CellKnobs(cells=3, dimensions=5), 0)
    into, centres = found["into"], found["centres"]
    assert torch.allclose(into @ into.T, torch.eye(2), atol=1e-4), "two directions part three"
    place = latents.flatten(1) @ into.T - found["origin"]
    nearest = (place[:, None] - centres).norm(dim=2).argmin(1).numpy()
    assert all(len(np.unique(nearest[number == m])) == 1 for m in range(3))
    assert len(np.unique(nearest)) == 3
    for m in range(3):
        own = place[torch.from_numpy(nearest == m)]
        assert torch.allclose(centres[m], own.mean(0), atol=1e-3)
        others = [k for k in range(3) if k != m]
        nearest_other = (centres[others] - centres[m]).norm(dim=1).min()
        assert found["radii"][m].item() == pytest.approx(nearest_other.item() / 2, rel=1e-4)


def test_images_are_moved_into_their_ball_and_no_further_and_nothing_else_of_them_is():
    latents, _ = clouds()
    _, fits = aimed(latents, np.full(len(latents), 2))
    assert fits["cell"].aims == (0, 0, 3, 0), "others have no images"
    tensors = fits["cell"].tensors
    into, centres, radii = (tensors[name][2] for name in ("into", "centres", "radii"))
    rows = latents[:6]
    group, number = torch.tensor([2] * 6), torch.tensor([0, 1, 2, -1, 0, 1])
    shift = moves(rows, Aim(tensors, group, number), 1.0)

    def away(x: torch.Tensor) -> torch.Tensor:
        place = x.flatten(1) @ into.T - tensors["origin"][2]
        return (place - centres[number.clamp(min=0)]).norm(dim=1) / radii[number.clamp(min=0)]

    before, after = away(rows), away(rows + shift)
    outside = (before > 1) & (number >= 0)
    assert 0 < outside.sum() < 5, "one of three is at home, mostly"
    assert torch.allclose(after[outside], torch.ones(int(outside.sum())), atol=1e-3)
    assert not shift[~outside].any(), "inside, or without aim"
    flat = shift.flatten(1)
    assert torch.allclose(flat @ into.T @ into, flat, atol=1e-3), "along what tells cells apart"
    half = moves(rows, Aim(tensors, group, number), 0.5)
    assert torch.allclose(half, shift / 2, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_clean_image_is_moved_alike_whatever_is_predicted(kind):
    alphas = None if kind == "flow_prediction" else torch.linspace(0.99, 0.01, 1000)
    prediction = Prediction(kind, 1000, alphas)
    x, raw, shift = torch.randn(3, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    said = Predicted(prediction, x, torch.tensor(600), raw)
    moved = said.moved(shift)
    assert torch.allclose(moved.clean, said.clean + shift, atol=1e-4)
    signal, spread = said.levels
    assert torch.allclose(signal * moved.clean + spread * moved.noise, x, atol=1e-4)
    assert torch.equal(said.moved(torch.zeros_like(shift)).raw, raw)


def test_groups_of_few_images_are_left_alone():
    latents, _ = clouds(each=20)
    group = np.repeat([0, 3], [24, 36])
    _, fits = aimed(latents, group, cells=4)
    assert fits["cell"].aims == (0, 0, 0, 4), "8 images for each cell"
    alike = torch.ones(30, 3, 2, 2)
    _, fits = aimed(alike, np.zeros(30, int))
    assert fits["cell"].aims == (1, 0, 0, 0) and fits["cell"].tensors["centres"].isfinite().all()


def test_images_of_a_voice_take_cells_in_turn(make_config):
    assert aim_of(np.arange(5), 3).tolist() == [0, 1, 2, 0, 1]
    assert aim_of(np.arange(2), 0).tolist() == [-1, -1]
    config = make_config()
    from raysynth.generators.lending import settled
    from raysynth.synthesis.plan import plan_specs, whole
    from raysynth.synthesis.specs import Asked

    recipe = settled(recipe_of(config), np.array(COUNTS))
    given = (Asked.of(config, recipe), records(config), GROUPS, COUNTS)
    table = whole(plan_specs(*given, aims={"cell": (3, 0, 0, 2)}))
    plain = planned(config, records(config), GROUPS, COUNTS)
    assert table.drop_columns(["cell"]).equals(plain)
    cell, group = table["cell"].to_numpy(), table["group"].to_numpy()
    assert cell[group == 0].tolist() == [0, 1, 2, 0, 1, 2] * 2, "two models, six images each"
    assert set(cell[(group == 1) | (group == 2)]) == {-1}


@pytest.fixture
def generate(make_config, lora_folder, tmp_path):
    """Images of rows with aims: `(scale, rows, aims) -> pixels`."""
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((96, 4, 8, 8)) * 2).float()
    path = f"{tmp_path}/fits.safetensors"
    group = np.arange(96) % 4
    adapters = [NAMES[0]] * 2 + [NAMES[1]] * 2

    def images(scale: float | None, rows: list[int], aims: list[int]) -> np.ndarray:
        terms: list[Any] = ["classifier_free"]
        way = Way()
        if scale is not None:
            terms.append(CELLS | {"scale": scale})
            keep(fits_of(guide_of(chosen(*terms), 3.0), latents, group, 4, 0), path)
            way = Way(fits=path, aims={"cell": (3,) * 4})
        config = make_config(synthesis={"guidance": terms, "guidance_scale": 3.0, "steps": 4})
        drawing = ImageGenerator(Drawing.of(config, way=way), lora_folder, NAMES)
        names, count = [adapters[row] for row in rows], len(rows)
        given = ([PROMPT] * count, ["grass"] * count, names, rows)
        pixels = drawing(*given, groups=[0] * count, aims={"cell": aims})
        return pixels.astype(int)

    return images


def test_without_scale_or_aim_images_are_bit_for_bit_what_they_were(generate):
    plain = generate(None, [0, 1, 2, 3], [])
    assert np.array_equal(generate(0.0, [0, 1, 2, 3], [0, 1, 2, 0]), plain)
    some = generate(1.0, [0, 1, 2, 3], [0, -1, 1, -1])
    assert np.array_equal(some[[1, 3]], plain[[1, 3]])
    assert np.abs(some[0] - plain[0]).max() > 8, "the third is at home"


def test_an_image_depends_on_its_own_aim_alone(generate):
    together = generate(1.0, [0, 1, 2, 3], [0, 1, 2, 0])
    assert np.abs(together[2:] - generate(1.0, [2, 3], [2, 0])).max() <= 1
    assert np.abs(together[2:] - generate(1.0, [2, 3], [1, 0]))[0].max() > 8


def test_a_run_settles_its_cells_once(ray_local, make_config, real, tmp_path):
    config = make_config(synthesis={"guidance": ["classifier_free", FEW]})
    recipe = recipe_of(config)
    way = settled_way(config, recipe, real, GROUPS, str(tmp_path))
    assert way == Way(fits=f"{tmp_path}/{FITS}", aims={"cell": (0,) * 4}), "six images each"
    assert json.loads((tmp_path / FILE).read_text()) == {"levels": [], "aims": {"cell": [0] * 4}}
    assert settled_way(config, recipe, "nowhere", GROUPS, str(tmp_path)) == way
    whole = (tmp_path / FITS).read_bytes()
    for left in (None, b"", whole[:-8]):  # as a cut may leave it: found once more
        (tmp_path / FITS).unlink()
        if left is not None:
            (tmp_path / FITS).write_bytes(left)
        assert settled_way(config, recipe, real, GROUPS, str(tmp_path)) == way
        assert (tmp_path / FITS).read_bytes() == whole
    (tmp_path / FITS).unlink()
    with pytest.raises(StageError, match=r"guidance\.safetensors cannot be read"):
        read(way.fits, ["cell"])


@pytest.mark.slow
def test_a_stage_writes_each_image_s_cell(
    ray_local, make_config, lora_folder, clusters_folder, tmp_path
):
    some = write_real(f"{tmp_path}/real", 10)
    config = make_config(synthesis={"guidance": [FEW]})
    folders = (some, lora_folder, clusters_folder)
    work = f"{tmp_path}/work"
    facts = run_synthesis(config, *folders, GROUPS, COUNTS, work, Progress())
    assert facts["aims"] == {"cell": [2] * 4}
    table = read_shards(work, ["id", "cell"])
    number = [int(name.split("-")[-1]) for name in table["id"].to_pylist()]
    assert table["cell"].to_pylist() == [n % 2 for n in number]


def test_what_cannot_be_is_refused(make_config):
    edits = make_config(generator="edit", synthesis={"guidance": [CELLS], "gaussian_above": None})
    with pytest.raises(ConfigError, match=r"cell with generator=edit.*Fix: generator=shared"):
        check_synthesis(edits)
    with pytest.raises(ConfigError, match="cell more than once"):
        check_synthesis(make_config(synthesis={"guidance": ["cell", "cell"]}))
    check_synthesis(make_config(synthesis={"guidance": ["classifier_free", "cell"]}))
