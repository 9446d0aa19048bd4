"""Which images of a class go against its bias, by how a biased network misreads them; pure numbers.

After DiffuBias (Ko et al. 2024, arXiv 2411.16079): per class, the images that a network trained to
be biased misreads most. How many these are, and how sure that is, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
LEAST_SPREAD = 1e-3
"""Standard deviation of log odds below which all of a side count as equal."""


def log_odds(logits: Numbers, label: Numbers) -> NDArray[np.float64]:
    """[N] log (1 - p_y) / p_y of [N, K] logits: in the order of cross-entropy, unbounded."""
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(label))
    own, others = logits[rows, label], logits.copy()
    others[rows, label] = -np.inf
    top = others.max(axis=1)
    return top + np.log(np.exp(others - top[:, None]).sum(axis=1)) - own


def otsu_count(values: Numbers, least: int, most: int) -> int:
    """How many of the largest values are another class than the rest (Otsu 1979).

    Of all numbers from `least` to `most` the one that separates best: the largest between-class
    variance w0 w1 (m0 - m1)^2.
    """
    ordered = np.sort(np.asarray(values, np.float64))[::-1]
    total = len(ordered)
    counts = np.arange(least, max(least, most) + 1)
    above = np.cumsum(ordered)[counts - 1]
    below = ordered.sum() - above
    between = counts * (total - counts) * (above / counts - below / (total - counts)) ** 2
    return int(counts[between.argmax()])


@dataclass(frozen=True)
class Sides:
    """The two sides of every class: [K] each, in log odds.

    `threshold`: above it an image conflicts. `conflict`: share of the training images that do.
    `aligned_mean`, `conflicting_mean`, `spread`: normal distributions of one spread.
    """

    threshold: NDArray[np.float64]
    conflict: NDArray[np.float64]
    aligned_mean: NDArray[np.float64]
    conflicting_mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def conflicts(self, odds: Numbers, label: Numbers) -> NDArray[np.bool_]:
        """[N] whether images are on the far side of their class."""
        return np.asarray(odds) > self.threshold[label]

    def posterior(self, odds: Numbers, label: Numbers) -> NDArray[np.float64]:
        """[N] how sure it is that an image conflicts: Bayes' rule with the two normals.

        Equal spreads keep it monotone: what is misread more is never less sure to conflict.
        """
        middle = (self.aligned_mean + self.conflicting_mean)[label] / 2
        apart = (self.conflicting_mean - self.aligned_mean)[label]
        prior = np.log(self.conflict / (1 - self.conflict))[label]
        evidence = prior + apart * (np.asarray(odds) - middle) / self.spread[label] ** 2
        return 1 / (1 + np.exp(-np.clip(evidence, -50, 50)))


def mine(odds: Numbers, label: Numbers, top_k: int | None, least: int, most: float) -> Sides:
    """The sides of every class of the training images.

    Parameters
    ----------
    odds, label : [N], of the training images; every class has more than 2 * `least`.
    top_k : how many of each class conflict (DiffuBias: 100 or 200); None: Otsu's threshold of
        1 - p_y, between `least` images and the share `most` of the class.
    """
    found: list[tuple[float, ...]] = []
    for y in range(int(np.max(label)) + 1):
        own = np.sort(np.asarray(odds, np.float64)[label == y])[::-1]
        count = top_k or otsu_count(1 / (1 + np.exp(-own)), least, int(most * len(own)))
        count = min(count, len(own) - least)
        far, near = own[:count], own[count:]
        within = ((far - far.mean()) ** 2).sum() + ((near - near.mean()) ** 2).sum()
        spread = max(LEAST_SPREAD, float(np.sqrt(within / len(own))))
        threshold = (far[-1] + near[0]) / 2
        found.append((threshold, count / len(own), near.mean(), far.mean(), spread))
    return Sides(*np.array(found).T)


def two_words(aligned: Numbers, conflicting: Numbers) -> tuple[int, int, NDArray[np.bool_]]:
    """What the two sides of every class show: two words for all classes, and which side is which.

    The pair a, b of the largest sum over classes of |d_a - d_b|, d the similarity of the
    conflicting side's images to a word less the aligned side's.

    Parameters
    ----------
    aligned, conflicting : [K, V] mean similarity of each side's images to every word.

    Returns
    -------
    The words a and b, a being the first class's aligned one; [K] whether a class's aligned side
    shows b.
    """
    apart = np.asarray(conflicting) - np.asarray(aligned)  # [K, V]
    between = np.abs(apart[:, :, None] - apart[:, None, :]).sum(axis=0)
    a, b = np.unravel_index(between.argmax(), between.shape)
    shows_b = apart[:, a] > apart[:, b]
    if shows_b[0]:
        a, b, shows_b = b, a, ~shows_b
    return int(a), int(b), shows_b
