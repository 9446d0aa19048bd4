"""Mean colours of drawn images, moved to where those of real ones lie."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.errors import DataError
from raysynth.synthesis.colours import (
    CHROMA,
    Colours,
    colours_of,
    keep,
    mean_colours,
    read,
    transport,
)
from tests.synthesis.conftest import GROUPS

DICE = np.random.default_rng(0)


def covariance(*spreads: float) -> np.ndarray:
    turn = np.linalg.qr(DICE.normal(size=(2, 2)))[0]
    return turn @ np.diag(np.square(spreads)) @ turn.T


def garments(count: int, spread: float, mean=(0.0, 40.0)) -> np.ndarray:
    """[N, 8, 8, 3] a grey garment, of any lightness, on a ground whose colour varies."""
    pixels = DICE.uniform(80, 160, (count, 8, 8, 1)).repeat(3, -1)
    colour = (np.array(mean) + spread * DICE.normal(size=(count, 2))) @ CHROMA
    pixels[:, :, 4:] += colour[:, None, None]
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def moved() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real, drawn and moved images of group 1."""
    real, drawn = garments(300, 4), garments(300, 15, (10.0, 20.0))
    group = np.ones(300, np.int64)
    found = colours_of(mean_colours(real), group, mean_colours(drawn), group, GROUPS)
    return real, drawn, found(drawn, group)


@pytest.mark.parametrize("drawn", [covariance(3, 1), covariance(5, 0.2)])
def test_what_is_carried_over_has_the_real_covariance(drawn):
    real = covariance(0.7, 2)
    map_ = transport(drawn, real)
    assert np.allclose(map_ @ drawn @ map_.T, real) and np.allclose(map_, map_.T)
    assert np.allclose(transport(real, real), np.eye(2))


def test_a_direction_in_which_nothing_varies_is_not_moved():
    map_ = transport(np.diag([4.0, 0.0]), np.diag([1.0, 9.0]))
    assert np.allclose(map_, np.diag([0.5, 1.0]))


def test_mean_colours_have_the_real_mean_and_spread(moved):
    real, drawn, made = map(mean_colours, moved)
    assert np.allclose(made.mean(0), real.mean(0), atol=0.3)
    assert np.allclose(np.cov(made.T), np.cov(real.T), atol=1)
    assert np.cov(drawn.T)[0, 0] > 5 * np.cov(real.T)[0, 0]


def test_grey_stays_grey_and_lightness_as_it_is(moved):
    _, drawn, made = moved
    change = np.ptp(made - drawn.astype(int), axis=-1)
    assert np.ptp(made[:, :, :4], axis=-1).mean() < 3 < 10 < change[:, :, 4:].mean()
    inside = ((made > 0) & (made < 255)).all((1, 2, 3))
    light = made.mean(-1)[inside] - drawn.mean(-1)[inside]
    assert inside.sum() > 100 and np.abs(light).max() < 0.7


def test_images_without_any_colour_are_moved_as_a_whole():
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    moved = Colours(np.eye(2)[None], np.array([[0.0, 30.0]]))(grey, np.zeros(1, int))
    assert np.allclose(mean_colours(moved), [[0, 30]], atol=1)
    assert (moved == moved[:, :1, :1]).all()


def test_a_group_that_was_hardly_drawn_is_left_as_it_is(moved):
    real, drawn, _ = moved
    group = np.ones(300, np.int64)
    found = colours_of(mean_colours(real), group, mean_colours(drawn), 0 * group, GROUPS)
    assert (found(drawn[:5], group[:5]) == drawn[:5]).all()


def test_they_are_kept_and_read(tmp_path, moved):
    _, drawn, _ = moved
    group = np.zeros(300, np.int64)
    found = colours_of(mean_colours(drawn), group, mean_colours(drawn[:64]), group[:64], GROUPS)
    keep(found, str(tmp_path / "colours.json"))
    again = read(str(tmp_path / "colours.json"))
    assert (again(drawn, group) == found(drawn, group)).all()
    with pytest.raises(DataError, match="nothing, expected an object with scale, shift"):
        read(str(tmp_path / "other.json"))
