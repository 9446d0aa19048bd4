"""Training attributes that are hidden or wrong, to simulate what labellers leave out or mistake."""

from __future__ import annotations

import numpy as np

from raysynth.groups.groups import UNKNOWN

STREAM = 43
HIDDEN, WRONG, OTHER = range(3)
"""What random numbers are drawn for."""


def imprecise_attributes(
    attribute: np.ndarray,
    group: np.ndarray,
    attributes: int,
    hidden: float,
    wrong: float,
    seed: int,
) -> np.ndarray:
    """[N] attributes of training images, some of them another one, some UNKNOWN.

    The same share of every group, by seed; a larger share holds the smaller one's images. Of those
    that stay, one of every group at least, wrong ones are spread as of all.

    Parameters
    ----------
    attribute, group : [N], all known; `attributes`: how many there are.
    hidden, wrong : shares of the images; all are hidden where `hidden` is 1.
    """
    found = np.array(attribute)
    for g in np.unique(group).tolist():
        rows = np.flatnonzero(group == g)
        mistaken = _order(rows, seed, g, WRONG)[: round(wrong * len(rows))]
        other = np.random.default_rng([seed, STREAM, g, OTHER])
        moved = other.integers(1, attributes, len(rows))[: len(mistaken)]
        found[mistaken] = (found[mistaken] + moved) % attributes
        most = len(rows) if hidden == 1 else len(rows) - 1
        gone = _order(rows, seed, g, HIDDEN)[: min(most, round(hidden * len(rows)))]
        found[gone] = UNKNOWN
    return found


def _order(rows: np.ndarray, seed: int, group: int, use: int) -> np.ndarray:
    return np.random.default_rng([seed, STREAM, group, use]).permutation(rows)
