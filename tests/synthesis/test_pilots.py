"""Colours of a run's images, settled once on pilots and then all actors'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.generators.recipe import recipe_of
from raysynth.groups.balance import evenly_of_each
from raysynth.planning.costs import Sized, of_synthesis
from raysynth.planning.sizes import Images, base_shape
from raysynth.progress import Progress
from raysynth.storage.tables import decode_images
from raysynth.synthesis import colours
from raysynth.synthesis.encoded import real_pixels
from raysynth.synthesis.settings import PILOTS
from raysynth.synthesis.shards import read_shards
from raysynth.synthesis.stage import run_synthesis
from tests.synthesis.conftest import COUNTS, GROUPS
from tests.synthesis.test_levels import write_real


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    return write_real(str(tmp_path_factory.mktemp("real")), 8)


def test_pilots_are_spread_over_a_groups_images():
    group = np.repeat([0, 1, 3], [1000, 10, PILOTS])
    rows = evenly_of_each(group, PILOTS)
    counts = np.bincount(group[rows], minlength=4)
    assert counts[1] == 10 and counts[3] == PILOTS and 0.9 * PILOTS <= counts[0] <= PILOTS
    assert rows[0] == 0 and rows[counts[0] - 1] > 950, "all clusters of the group"


@pytest.mark.parametrize(
    ("generator", "asked", "moved"),
    [
        ("lora", {}, False),
        ("lora", {"colours": "matched"}, True),
        ("vanilla", {"colours": "matched"}, True),
        ("edit", {"colours": "matched"}, False),
    ],
)
def test_whose_colours_are_moved(make_config, generator, asked, moved):
    config = make_config(generator=generator, synthesis={**asked, "gaussian_above": None})
    assert recipe_of(config).recolours is moved


def drawn(config, adapters: str, clusters: str, real: str, work: Path) -> tuple[dict, np.ndarray]:
    """Facts, and the mean colours of the images of group 0."""
    given = (config, real, adapters, clusters, GROUPS, COUNTS, str(work), Progress())
    facts = run_synthesis(*given)
    table = read_shards(str(work), ["group", "image"])
    pixels = decode_images(table["image"].filter(table["group"].to_numpy() == 0))
    return facts, colours.mean_colours(pixels)


def test_images_of_a_run_have_the_colours_of_real_ones(
    ray_local, make_config, lora_folder, clusters_folder, real, tmp_path
):
    images = {"images_per_group": 48, "rows_per_shard": 100}
    given = (lora_folder, clusters_folder, real)
    plain, before = drawn(make_config(synthesis=images), *given, tmp_path / "drawn")
    config = make_config(synthesis={**images, "colours": "matched"})
    facts, after = drawn(config, *given, tmp_path / "matched")
    pixels, group = real_pixels(real, 32)
    wanted = colours.mean_colours(pixels[group == 0])
    assert np.linalg.norm(after.mean(0) - wanted.mean(0)) < 4
    assert np.linalg.norm(before.mean(0) - wanted.mean(0)) > 8
    ratio = after.std(0) / wanted.std(0)
    assert (ratio > 0.6).all() and (ratio < 1.5).all(), "16 real images, and clipped pixels"
    assert "colours" not in plain and facts["colours"].keys() == set(GROUPS.names)
    assert facts["colours"]["pullover/grass"] != 1


def test_a_plan_counts_the_pilots():
    shape, images = base_shape(load_config(), []), Images({}, 4, 800, 600, 32, 32, 32)
    found = {}
    for asked in ("drawn", "matched"):
        config = load_config(None, [f"synthesis.colours={asked}"])
        sized = Sized(images, shape, {config.generator: recipe_of(config)}, {})
        found[asked] = of_synthesis(config, sized).flops["generation"]
    assert found["matched"] == pytest.approx(found["drawn"] * (800 + 4 * PILOTS) / 800)
