"""Distances against closed forms and hand-worked sets; floors of images that are the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from raysynth.fidelity.distances import (
    LEAST,
    MEASURES,
    beside_floor,
    frechet,
    kernel,
    neighbourhoods,
    principal,
)


def standard(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Numbers whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    x = np.random.default_rng(seed).normal(size=(count, width))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_the_frechet_distance_of_gaussians_is_its_closed_form():
    x = standard(50, 3)
    scale, shift = np.array([2.0, 0.5, 1.0]), np.array([1.0, 0.0, -3.0])
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x * scale + shift) == pytest.approx(((scale - 1) ** 2).sum() + 10)
    # Covariances that do not commute.
    one, other = (np.random.default_rng(s).normal(size=(3, 3)) for s in (1, 2))
    root = sqrtm((one @ one.T) @ (other @ other.T)).real
    expected = np.trace(one @ one.T + other @ other.T - 2 * root)
    assert frechet(x @ one.T, x @ other.T) == pytest.approx(expected)


def test_the_kernel_distance_by_hand_and_without_bias():
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    assert kernel(x, y) == pytest.approx(1 + 7**3 - 2 * (1 + 1 + 27 + 64) / 4)
    rng = np.random.default_rng(0)
    same = [kernel(rng.normal(size=(30, 4)), rng.normal(size=(30, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5 and min(same) < 0


def test_neighbourhoods_by_hand():
    real, made = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([[0.5], [5.0]])
    # Radii: real 1, 1, 1, 8; generated 4.5 each.
    found = neighbourhoods(real, made, k=1)
    assert found == {"precision": 1.0, "recall": 0.75, "density": 1.5, "coverage": 0.75}


def test_real_images_are_at_their_floor_and_others_are_not():
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(400, 8)), rng.normal(size=(300, 8))
    axes, held = principal(np.concatenate([real, same]))
    assert axes.shape == (8, 8) and held == pytest.approx(1)
    found = beside_floor(real, same, axes, rng)
    assert found["n"] == 200 and not found["unknown"]
    for name in ("frechet", "precision", "recall", "density", "coverage"):
        assert 0.8 < found[name]["value"] / found[name]["floor"] < 1.25, name
    assert abs(found["kernel"]["value"]) < 0.02 and abs(found["kernel"]["floor"]) < 0.02
    narrow = beside_floor(real, 0.5 * same, axes, rng)
    assert narrow["frechet"]["value"] > 5 * narrow["frechet"]["floor"]
    assert narrow["recall"]["value"] < 0.7 * narrow["recall"]["floor"]
    assert narrow["precision"]["value"] > narrow["precision"]["floor"]
    far = beside_floor(real, same + 3, axes, rng)
    assert far["kernel"]["value"] > 1 and far["coverage"]["value"] < 0.1


def test_of_few_images_it_is_said_what_cannot_be_known():
    rng = np.random.default_rng(0)
    few = beside_floor(
        rng.normal(size=(2 * LEAST - 1, 4)), rng.normal(size=(80, 4)), np.eye(4), rng
    )
    assert [few[name] for name in MEASURES] == [None] * len(MEASURES)
    assert "99 real and 80 kept images; 100 and 50 are needed" in few["unknown"]
