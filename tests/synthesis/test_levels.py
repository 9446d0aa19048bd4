"""Levels of a run: the spectrum of its images, settled once, the same for all actors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raysynth.errors import DataError
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.progress import Progress
from raysynth.storage.tables import REAL, encode_png, with_groups, write_table
from raysynth.synthesis.encoded import evenly, real_latents
from raysynth.synthesis.gaussian import read
from raysynth.synthesis.levels import FILE, GAUSSIANS, find_way, settled_way
from raysynth.synthesis.shards import read_shards
from raysynth.synthesis.spectrum import measured, spectrum_of
from raysynth.synthesis.stage import run_synthesis
from raysynth.synthesis.way import Way
from tests.synthesis.conftest import COUNTS, GROUPS

MATCHED = {"schedule": "matched", "steps": 3}


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    """Six images of every group, in two files, of random colours and some texture."""
    return write_real(str(tmp_path_factory.mktemp("real")), 3)


def write_real(folder: str, each: int) -> str:
    """Two files of `each` images of every group."""
    rng = np.random.default_rng(0)
    for number in range(2):
        rows = []
        for g in [0, 1, 2, 3] * each:
            pixels = rng.integers(0, 160, (1, 1, 3)) + rng.integers(0, 90, (32, 32, 3))
            image = {"bytes": encode_png(pixels.astype(np.uint8)), "path": None}
            rows.append((f"f{number}n{len(rows)}", image, g // 2, g % 2, g, "train"))
        columns = dict(zip(REAL.names, map(list, zip(*rows, strict=True)), strict=True))
        table = pa.table(columns, schema=with_groups(REAL, GROUPS))
        write_table(table, f"{folder}/train-{number:05d}.parquet")
    return folder


def latents(images: int, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian latents with far-off group means, their labels and attributes."""
    rng = np.random.default_rng(1)
    label, attribute = rng.integers(0, 2, (2, images))
    axes = np.linalg.qr(rng.standard_normal((len(variances), len(variances))))[0]
    varied = rng.standard_normal((images, len(variances))) * np.sqrt(variances)
    varied[:, 3] += 4 * label  # what tells labels apart
    varied[:, 0] += 50 * attribute
    return varied @ axes, label, attribute


def test_variances_are_those_within_groups():
    variances = np.geomspace(20, 0.1, 12)
    spectrum = measured(*latents(2000, variances))
    assert spectrum.counts.sum() == 9, "the other three have less than a hundredth of the variance"
    assert np.allclose(spectrum.variances[::-1], variances[:9], rtol=0.15)


def test_labels_are_told_apart_along_their_direction_not_the_attributes():
    variances = np.geomspace(20, 0.1, 12)
    spectrum = measured(*latents(2000, variances))
    (place,) = np.flatnonzero(spectrum.labels > 0.5)
    assert spectrum.labels.sum() == pytest.approx(1)
    assert spectrum.variances[place] == pytest.approx(variances[3], rel=0.2)
    varied, label, attribute = latents(2000, variances)
    assert measured(varied, label * 0, attribute).labels.sum() == 0, "one label"


def test_directions_that_no_image_reaches_share_what_is_left():
    """40 images, 200 numbers: 20 broad directions, the others of variance 1."""
    variances = np.concatenate([np.full(5, 400.0), np.ones(195)])
    spectrum = measured(*latents(40, variances))
    assert 190 <= spectrum.counts.sum() <= 200
    least = spectrum.variances[spectrum.counts.argmax()]
    assert spectrum.counts.max() > 150 and 0.5 < least < 5


def test_images_are_taken_evenly_small_groups_whole():
    group = np.repeat([0, 1, 2], [100, 3, 60])
    rows = evenly(group, 43)
    assert np.bincount(group[rows]).tolist() == [20, 3, 20]
    assert np.array_equal(rows, np.unique(rows))
    assert rows[:2].tolist() == [0, 5], "every fifth of a hundred"
    assert len(evenly(group, 1000)) == 163


def test_the_spectrum_of_real_images(make_config, real):
    base = load_base(make_config().base, ("vae",))
    spectrum = spectrum_of(*real_latents(base, real, 32), GROUPS)
    assert 240 < spectrum.counts.sum() <= 4 * 8 * 8
    assert (spectrum.variances > 0).all() and len(spectrum.variances) > 3


def test_too_few_images_or_all_the_same_are_refused(make_config, real, monkeypatch):
    base = load_base(make_config().base, ("vae",))
    monkeypatch.setattr("raysynth.synthesis.spectrum.LEAST", 25)
    with pytest.raises(DataError, match=r"24 training image\(s\); expected at least 25"):
        spectrum_of(*real_latents(base, real, 32), GROUPS)
    one = np.zeros(8, int)
    with pytest.raises(DataError, match="the latents of all training images"):
        measured(np.ones((8, 5)), one, one)


def test_a_run_settles_its_levels_once(ray_local, make_config, real, tmp_path):
    config = make_config(synthesis={**MATCHED, "gaussian_above": 1.0})
    recipe = recipe_of(config)
    way = settled_way(config, recipe, real, GROUPS, str(tmp_path))
    here = find_way(config.base, config.synthesis, recipe, config.resources, real, GROUPS)
    assert way == here == Way(way.levels) and len(way.levels) == 3
    assert json.loads((tmp_path / FILE).read_text()) == {"levels": list(way.levels)}
    (tmp_path / FILE).write_text(json.dumps({"levels": [0.9, 0.5, 0.1]}))
    assert settled_way(config, recipe, "nowhere", GROUPS, str(tmp_path)).levels == (0.9, 0.5, 0.1)
    plain = make_config(synthesis={"gaussian_above": 1.0})
    assert settled_way(plain, recipe, "nowhere", GROUPS, "") == Way()


def test_levels_begin_where_the_gaussian_ends(ray_local, make_config, real, tmp_path):
    config = make_config(synthesis={"steps": 4, "gaussian_above": 0.8})
    recipe = recipe_of(config)
    way = settled_way(config, recipe, real, GROUPS, str(tmp_path))
    assert way.levels == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert way.gaussians == f"{tmp_path}/{GAUSSIANS}"
    kept = read(way.gaussians)
    assert kept.latents.shape == (24, 4, 8, 8) and kept.group.bincount().tolist() == [6] * 4
    (tmp_path / FILE).unlink()
    assert settled_way(config, recipe, real, GROUPS, str(tmp_path)) == way
    assert settled_way(config, recipe, "nowhere", GROUPS, str(tmp_path)) == way


@pytest.mark.slow
def test_all_actors_and_attempts_draw_at_the_same_levels(
    ray_local, make_config, real, lora_folder, clusters_folder, tmp_path
):
    def synthesize(work: str, **synthesis: Any) -> dict[str, Any]:
        config = make_config(synthesis={**MATCHED, **synthesis})
        folders = (real, lora_folder, clusters_folder)
        return run_synthesis(config, *folders, GROUPS, COUNTS, f"{tmp_path}/{work}", Progress())

    facts = synthesize("one")
    assert list(facts["levels"]) == sorted(facts["levels"], reverse=True)
    assert not (tmp_path / "one" / FILE).exists(), "the manifest has them"
    synthesize("two", actors=2)
    first, second = (read_shards(f"{tmp_path}/{work}") for work in ("one", "two"))
    assert first["id"].equals(second["id"]) and first["image"].equals(second["image"])
    (tmp_path / "on").mkdir()
    (tmp_path / "on" / FILE).write_text(json.dumps({"levels": [0.999, 0.5, 0.2]}))
    gone_on = synthesize("on")
    assert list(gone_on["levels"]) == [0.999, 0.5, 0.2]
    assert not read_shards(f"{tmp_path}/on")["image"].equals(first["image"])
