"""How much each group counts: weights, balanced draws and subsets of rows by group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.errors import DataError


def image_weights(group: NDArray[Any], objective: str) -> NDArray[np.float64]:
    """[N] weights summing to 1: every image alike (`erm`), or every group alike (others)."""
    if objective == "erm":
        return np.full(len(group), 1.0 / len(group))
    sizes = np.bincount(group)
    return 1.0 / (sizes[group] * (sizes > 0).sum())


def balanced_subset(group: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Sorted rows: as many of every group that occurs as the smallest has, drawn at random."""
    sizes = np.bincount(group)
    return drawn_rows(group, np.where(sizes > 0, sizes[sizes > 0].min(), 0), seed)


def fill_counts(rule: str, sizes: NDArray[Any]) -> NDArray[np.int64]:
    """[G] synthetic images that are added per group.

    usb fills every group up to the largest; asb (and FFR's step 1) takes as many in all, divided
    equally (Qraitem et al., arXiv 2308.04553; their code).
    """
    missing = sizes.max() - sizes
    if rule == "usb":
        return missing
    return np.full(len(sizes), missing.sum() // len(sizes))


def drawn_rows(group: NDArray[Any], counts: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Rows of `counts[g]` random images of each group, or all that there are."""
    rows = [
        np.random.default_rng([seed, 101, g]).permutation(np.flatnonzero(group == g))[:count]
        for g, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(rows))


def draw_balanced(group: NDArray[Any], count: int, groups: int, seed: int) -> NDArray[np.int64]:
    """Rows of a group-balanced draw without replacement: `count` in all, or as many as there are.

    Every group gives the same number, at least one, at most what the smallest group has. A larger
    draw contains the smaller one of the same seed, so ratios differ in size, not in luck.

    Parameters
    ----------
    group : [N] int; groups : number of groups G; seed : of the run.

    Raises
    ------
    DataError
        When some group has no image at all.
    """
    sizes = np.bincount(group, minlength=groups)
    if (sizes == 0).any():
        raise DataError(
            f"synthetic images: group(s) {np.flatnonzero(sizes == 0).tolist()} have none; got "
            f"sizes {sizes.tolist()}; a balanced draw needs every group. Fix: generate more "
            "(synthesis.images_per_group) or keep more (selection.keep)"
        )
    each = min(max(1, round(count / groups)), int(sizes.min()))
    rows = [
        np.random.default_rng([seed, 101, g]).permutation(np.flatnonzero(group == g))[:each]
        for g in range(groups)
    ]
    return np.sort(np.concatenate(rows))


def evenly_of_each(group: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Rows of at most `most` images of each group, every so many-th: images lie by cluster.

    `group`: [N] of all images.
    """
    rows = (np.flatnonzero(group == g) for g in np.unique(group))
    places = [r[:: -(-len(r) // most)] for r in rows]
    return np.concatenate(places) if places else np.zeros(0, np.int64)
