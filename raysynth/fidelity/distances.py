"""How far two sets of images are from each other in an encoder's space, and from being the same.

A distance of finite sets is above 0 even where both come from one distribution, so each stands
beside its floor: real against other real images, as many of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Vectors = NDArray[Any]
NEIGHBOURS = 5
"""k of the neighbourhoods (Naeem et al. 2020, section 4: 5)."""
LEAST = 50
"""Images of each side from which a distance is told."""
PRINCIPAL = 32
"""Directions of the Fréchet distance: fewer than `LEAST` images."""
SPLITS = 4
"""Draws of two halves of the real images, over which distances and floors are averaged."""


def frechet(x: Vectors, y: Vectors) -> float:
    """Squared Fréchet distance of the two sets' Gaussians; [N, D] and [M, D] features.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), the Fréchet Inception distance of Heusel et
    al. 2017 (arXiv 1706.08500, section 1, equation 6) in any encoder's space. The root's trace is
    that of (C_x^(1/2) C_y C_x^(1/2))^(1/2), whose eigenvalues are real.
    """
    mean = x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)
    one, other = (np.atleast_2d(np.cov(each, rowvar=False, dtype=np.float64)) for each in (x, y))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return float(mean @ mean + np.trace(one) + np.trace(other) - 2 * shared)


def kernel(x: Vectors, y: Vectors) -> float:
    """Squared maximum mean discrepancy, unbiased: it may be below 0; [N, D] and [M, D] features.

    Under the polynomial kernel (x.y / D + 1)^3, the kernel Inception distance of Binkowski et al.
    2018 (arXiv 1801.01401, section 4 and equation 4), of all images instead of their blocks.
    """
    one, other = x.astype(np.float64), y.astype(np.float64)
    within = [_cubic(each, each) for each in (one, other)]
    alone = sum(
        (found.sum() - np.trace(found)) / (len(found) * (len(found) - 1)) for found in within
    )
    return float(alone - 2 * _cubic(one, other).mean())


def _cubic(x: Vectors, y: Vectors) -> Vectors:
    return (x @ y.T / x.shape[1] + 1) ** 3


def neighbourhoods(real: Vectors, made: Vectors, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage; [N, D] real and [M, D] generated features.

    A neighbourhood is the ball around an image up to its k-th nearest one of its own set.
    Precision: share of the generated images inside some real neighbourhood; recall: of the real
    inside some generated one (Kynkäänniemi et al. 2019, arXiv 1904.06991, equations 1 and 2).
    Density: real neighbourhoods that a generated image is in, over k; coverage: share of the real
    ones with a generated image inside (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 4).
    """
    apart = cdist(real, made)
    of_real, of_made = (_radii(each, k) for each in (real, made))
    inside = apart < of_real[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((apart < of_made[None, :]).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float((apart.min(axis=1) < of_real).mean()),
    }


def _radii(own: Vectors, k: int) -> Vectors:
    """[N] distance of each row to its k-th nearest other one."""
    return np.partition(cdist(own, own), k, axis=1)[:, k]  # 0 is the row itself


def principal(real: Vectors) -> tuple[Vectors, float]:
    """[D, P] the `PRINCIPAL` directions in which real images vary most; their share of variance.

    A Gaussian of D dimensions needs more than D images, and many more to be near the truth. A group
    of `LEAST` images has a Fréchet distance in these few directions alone.
    """
    values, vectors = np.linalg.eigh(np.cov(real, rowvar=False, dtype=np.float64))
    most = slice(None, -PRINCIPAL - 1, -1)
    return vectors[:, most], float(values[most].sum() / values.sum())


def beside_floor(
    real: Vectors, made: Vectors, axes: Vectors, rng: np.random.Generator
) -> dict[str, Any]:
    """Every distance of generated from real images, and its floor, at the same number of images.

    `SPLITS` times the real images are cut into two halves of n each; n random generated ones are
    compared with one half, the other half is the floor.

    Parameters
    ----------
    real, made : [N, D], [M, D] features of one group.
    axes : [D, P] directions of the Fréchet distance, see `principal`; the others are of all.

    Returns
    -------
    `n` and, by name of MEASURES, `value` and `floor` (means over the splits); None for what is not
    known, and `unknown`: why, empty where all is.
    """
    n = min(len(real) // 2, len(made))
    if n < LEAST:
        few = f"{len(real)} real and {len(made)} kept images; {2 * LEAST} and {LEAST} are needed"
        unknown = f"no distance can be known from {few}"
        return {"n": n, **dict.fromkeys(MEASURES), "unknown": unknown}
    values, floors = [], []
    for _ in range(SPLITS):
        halves = rng.permutation(len(real))
        one, other = real[halves[:n]], real[halves[n : 2 * n]]
        values.append(_all(one, made[rng.permutation(len(made))[:n]], axes))
        floors.append(_all(one, other, axes))
    told = zip(MEASURES, np.mean(values, axis=0), np.mean(floors, axis=0), strict=True)
    found = {name: {"value": float(v), "floor": float(floor)} for name, v, floor in told}
    return {"n": n, **found, "unknown": ""}


def _all(real: Vectors, made: Vectors, axes: Vectors) -> list[float]:
    """In the order of MEASURES."""
    pairs = [frechet(real @ axes, made @ axes), kernel(real, made)]
    return [*pairs, *neighbourhoods(real, made).values()]


MEASURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")
