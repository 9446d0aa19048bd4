"""Plain statistics against images whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.fidelity.statistics import LEAST, PLAIN, RING, border, plain, spreads


def flat(*colour: int, side: int = 32) -> np.ndarray:
    return np.full((1, side, side, 3), colour, np.uint8)


def test_a_flat_image_has_its_colour_and_nothing_else():
    (found,) = plain(flat(100, 50, 10))
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 10
    assert found == pytest.approx([grey, 0, 50, 10 - 75, 0], abs=1e-3)


def test_contrast_and_sharpness_of_stripes():
    stripes = flat(0, 0, 0)
    stripes[:, :, ::2] = 200
    (found,) = plain(stripes)
    # Grey 0 and 200 in turns: the Laplacian is 400 or -400.
    assert found == pytest.approx([100, 100, 0, 0, 400**2], rel=1e-5)
    assert plain(np.repeat(stripes, 2, axis=0)).shape == (2, len(PLAIN))


@pytest.mark.parametrize("side", [12, 32, 224])
def test_the_border_does_not_see_the_middle(side):
    image = flat(10, 20, 30, side=side)
    middle = slice(side // 5, -(side // 5))
    image[:, middle, middle] = 255
    assert border(image)[0] == pytest.approx([10, 20, 30, 0, 0, 0])
    ring = np.zeros((1, side, side, 3), np.uint8)
    inside = round(side * (1 - (1 - RING) ** 0.5) / 2)
    ring[:, inside:-inside, inside:-inside] = 255
    assert border(ring)[0].max() == 0 and abs((ring == 0).mean() - RING) < 0.08


def test_ratios_of_spreads_and_their_intervals():
    rng = np.random.default_rng(0)
    real = rng.normal(100, 20, (400, 5))
    made = rng.normal(110, [20, 10, 40, 20, 20], (300, 5))
    found = spreads(real, made, rng)
    for name, ratio in zip(PLAIN, (1, 0.5, 2, 1, 1), strict=True):
        one = found[name]
        assert one["low"] < ratio < one["high"] and one["high"] - one["low"] < 0.35 * ratio
        assert one["low"] < one["ratio"] < one["high"]
        assert one["level"] == pytest.approx(10, abs=7)
    assert found["contrast"]["high"] < 1 < found["red_green"]["low"]


def test_nothing_is_said_of_few_images_or_of_what_does_not_vary():
    rng = np.random.default_rng(0)
    few, many = (rng.normal(size=(count, 5)) for count in (LEAST - 1, 60))
    assert spreads(many, few, rng) == spreads(few, many, rng) == dict.fromkeys(PLAIN)
    still = many.copy()
    still[:, 2] = 7
    found = spreads(still, many, rng)
    assert found["red_green"] is None and found["brightness"] is not None
