"""The spectrum of real images' latents: how far they vary within their groups, in which directions.

What is drawn for a group varies as that group does, so the groups' means are taken out. Directions
are principal components of half of the images, their variances those of the other half: the largest
and smallest of a sample's own eigenvalues are too large and too small. What no component of the
half reaches varies, on average, as the rest of the variance says.

Shape suffixes: N images, D numbers of a latent, K components, G groups.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.synthesis.noise import Spectrum

LEAST = 8
"""Images without which nothing can be said: four to find directions, four to measure them."""
BUNDLES = 32
"""Directions are bundled by their variance, evenly in its logarithm."""
CHANCE = 0.01
"""Share of directions that tell no labels apart, and are taken for such that do."""
KEPT = 0.99
"""Share of the variance that is looked at. Nearly half of the tiny base's directions share the
rest: no one sees them, and even weights would spend the lowest levels on them."""
NULL = 1e-6
"""Variance of a component, as a share of the largest, below which it is none."""


def spectrum_of(latents: Tensor, group: np.ndarray, groups: Groups) -> Spectrum:
    """The spectrum of a run's training images, see `encoded.real_latents`.

    `latents`: [N, C, H, W] on the CPU; `group`: [N].

    Raises
    ------
    DataError
        There are fewer than `LEAST` images, or all latents are the same.
    """
    if len(group) < LEAST:
        raise DataError(
            f"synthesis.schedule=matched: {len(group)} training image(s); expected at least "
            f"{LEAST} to measure how latents vary. Fix: more images, or synthesis.schedule=even"
        )
    label, attribute = (np.array([of(g) for g in group]) for of in (groups.label, groups.attribute))
    return measured(latents.flatten(1).numpy(), label, attribute)


def measured(latents_ND: np.ndarray, label: np.ndarray, attribute: np.ndarray) -> Spectrum:
    """The spectrum of latents; `label`, `attribute`: [N], a group is a pair of them."""
    group = np.unique(np.stack([label, attribute]), axis=1, return_inverse=True)[1].ravel()
    within_ND = latents_ND - _means(latents_ND, group)[group]
    half = np.arange(len(group)) % 2 == 0
    axes_KD = _components(within_ND[half])
    seen_NK = latents_ND @ axes_KD.T
    freedom = max(1, np.sum(~half) - len(np.unique(group[~half])))
    other = latents_ND[~half] - _means(latents_ND[~half], group[~half])[group[~half]]
    variance_K = ((other @ axes_KD.T) ** 2).sum(axis=0) / freedom
    unseen = latents_ND.shape[1] - len(axes_KD)
    rest = max(0.0, (other**2).sum() / freedom - variance_K.sum()) / max(unseen, 1)
    variances = np.append(variance_K, rest)
    counts = np.append(np.ones(len(axes_KD)), unseen)
    apart = np.append(_apart(seen_NK, label, attribute), 0.0)
    return _bundled(variances, counts, apart)


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[G, ...] of [N, ...], groups numbered from 0; those without images: 0."""
    total = np.zeros((group.max() + 1, *values.shape[1:]))
    np.add.at(total, group, values)
    return total / np.maximum(np.bincount(group), 1)[:, None]


def _components(within_MD: np.ndarray) -> np.ndarray:
    """[K, D] orthonormal principal components, by whichever side is shorter."""
    rows, columns = within_MD.shape
    if columns <= rows:
        _, vectors = np.linalg.eigh(within_MD.T @ within_MD)
        return vectors.T[::-1]
    values, vectors = np.linalg.eigh(within_MD @ within_MD.T)
    kept = values > NULL * values[-1]
    return (within_MD.T @ (vectors[:, kept] / np.sqrt(values[kept]))).T[::-1]


def _apart(seen_NK: np.ndarray, label: np.ndarray, attribute: np.ndarray) -> np.ndarray:
    """[K] how well a direction tells an attribute's labels apart: F of a nested design, less 1.

    The mean square between labels of the same attribute over that within groups: of biased images
    labels and attributes go together, and what tells attributes apart is not asked for. 0 where
    chance, whose F is 1 on average, would do as much (`CHANCE`).
    """
    from scipy.stats import f

    between, freedom = np.zeros(seen_NK.shape[1]), 0
    within, left = np.zeros(seen_NK.shape[1]), len(seen_NK)
    for a in np.unique(attribute):
        mine, names = seen_NK[attribute == a], label[attribute == a]
        known = np.unique(names)
        freedom, left = freedom + len(known) - 1, left - len(known)
        for y in known:
            own = mine[names == y]
            between += len(own) * (own.mean(axis=0) - mine.mean(axis=0)) ** 2
            within += ((own - own.mean(axis=0)) ** 2).sum(axis=0)
    if not freedom or left < 1:
        return between * 0
    ratio = (between / freedom) / np.maximum(within / left, np.finfo(float).tiny)
    return np.where(ratio > f.isf(CHANCE, freedom, left), ratio - 1, 0.0)


def _bundled(variances: np.ndarray, counts: np.ndarray, apart: np.ndarray) -> Spectrum:
    """Directions of like variance as one, at their mean logarithm."""
    order = np.argsort(variances)
    below = np.cumsum((variances * counts)[order])
    real = np.zeros(len(order), bool)
    real[order] = (below > (1 - KEPT) * below[-1]) & (counts[order] > 0)
    if not real.any():
        raise DataError(
            "synthesis.schedule=matched: the latents of all training images of a group are the "
            "same; expected images that differ. Fix: look at the images, or synthesis.schedule=even"
        )
    logs, counts, apart = np.log(variances[real]), counts[real], apart[real]
    edges = np.linspace(logs.min(), logs.max(), BUNDLES + 1)[1:-1]
    bundle = np.unique(np.digitize(logs, edges), return_inverse=True)[1]
    size, told = np.bincount(bundle, counts), np.bincount(bundle, apart)
    means = np.bincount(bundle, counts * logs) / size
    return Spectrum(np.exp(means), size, told / (told.sum() or 1.0))
