"""Two methods on the same test images: how far apart they are, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.metrics import CHUNK, RESAMPLES

METHOD = (
    "paired bootstrap, 2,000 draws: the test images of each group are drawn anew, the same ones "
    "for both methods, and so are the training seeds of each"
)
"""In words, for wherever an interval stands."""
SEED = 1


@dataclass(frozen=True)
class Difference:
    """One method minus another, shares of 1: of the means over seeds, and its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_differences(
    one: NDArray[np.bool_],
    other: NDArray[np.bool_],
    group: NDArray[np.int64],
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """WGA and AGA of `one` minus those of `other`, each with its 95 % interval.

    Percentiles of a bootstrap of two levels (Efron & Tibshirani 1993, chapters 8 and 13). Test
    images are drawn with replacement within each group, the same ones for both methods: what both
    misread leaves no trace in the difference. Training seeds are drawn with replacement for each
    method by itself. Of a method with one seed the seeds' share is not known and left out; of three
    it is still too small by a third of its variance.

    Parameters
    ----------
    one, other : [S, N], whether each seed's classifier is right on each image; S may differ.
    group : [N] int, the images' groups.
    """
    rng = np.random.default_rng(SEED)
    sides = (one, other)
    drawn = [_seeds_drawn(len(side), resamples, rng) for side in sides]
    accuracy: list[list[NDArray[np.float64]]] = [[], []]
    for g in np.unique(group):
        of_group = [side[:, group == g] for side in sides]
        for found, each in zip(accuracy, _drawn_together(of_group, resamples, rng), strict=True):
            found.append(each)
    tables = [np.stack(found) for found in accuracy]  # [G, R, S]
    whole = [np.stack([side[:, group == g].mean(1) for g in np.unique(group)]) for side in sides]
    differences = {}
    for key, over_groups in (("wga", np.min), ("aga", np.mean)):
        mean = [float(over_groups(side, axis=0).mean()) for side in whole]
        means = [
            (over_groups(side, axis=0) * weight).sum(1)
            for side, weight in zip(tables, drawn, strict=True)
        ]
        low, high = np.percentile(means[0] - means[1], (2.5, 97.5))
        differences[key] = Difference(mean[0] - mean[1], float(low), float(high))
    return differences


def _seeds_drawn(seeds: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[R, S] what each seed weighs in each draw; rows add up to 1."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds


def _drawn_together(
    sides: list[NDArray[np.bool_]], resamples: int, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """[R, S] accuracies of each side on one group's images, drawn anew for both alike."""
    size = sides[0].shape[1]
    parts: list[list[NDArray[np.float64]]] = [[] for _ in sides]
    for start in range(0, resamples, CHUNK):
        times = rng.multinomial(size, np.full(size, 1 / size), min(CHUNK, resamples - start))
        for found, right in zip(parts, sides, strict=True):
            found.append(times @ right.T / size)
    return [np.concatenate(found) for found in parts]
