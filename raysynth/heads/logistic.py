"""scikit-learn's logistic regression as DFR uses it: balanced subsets, averaged coefficients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.errors import DataError
from raysynth.networks.linear import Head

STRENGTHS = (3.0, 1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01, 0.003)
"""Inverse penalties C that the authors of DFR try on Waterbirds or on CelebA (in their code)."""

MAX_ITERATIONS = 1000
Penalty = Literal["l1", "l2"]


def averaged_regression(
    features: NDArray[Any],
    label: NDArray[Any],
    subsets: Iterable[NDArray[np.int64]],
    strength: float,
    penalty: Penalty,
    center: NDArray[Any],
    scale: NDArray[Any],
    device: torch.device,
) -> Head:
    """Mean of the regressions on each subset of rows, on features (x - center) / scale.

    Two labels give the published solver (liblinear); more are fitted one against the rest. The
    standardisation is folded into the head. DataError where a subset lacks one of the labels.
    """
    weights, biases = [], []
    known = np.unique(label)
    for rows in subsets:
        if lacking := np.setdiff1d(known, label[rows]).tolist():
            raise DataError(
                f"DFR: no image of label(s) {lacking} among the {len(rows)} that a regression is "
                f"fitted to; expected all of {known.tolist()}. Fix: add images of that label"
            )
        weight, bias = _regression(
            (features[rows] - center) / scale, label[rows], strength, penalty
        )
        weights.append(weight)
        biases.append(bias)
    weight = np.mean(weights, axis=0) / scale
    bias = np.mean(biases, axis=0) - weight @ center
    parts = (torch.tensor(part, dtype=torch.float32, device=device) for part in (weight, bias))
    return Head(*parts)


def standardisation(features: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and spread [D]; constant features keep their size."""
    scale = features.std(axis=0)
    return features.mean(axis=0), np.where(scale > 1e-6, scale, 1.0)


def _regression(
    x: NDArray[Any], label: NDArray[Any], strength: float, penalty: Penalty
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights [K, D] and biases [K]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    one = LogisticRegression(
        C=strength,
        l1_ratio=1.0 if penalty == "l1" else 0.0,
        solver="liblinear",
        max_iter=MAX_ITERATIONS,
        random_state=0,
    )
    if len(np.unique(label)) > 2:
        rest = OneVsRestClassifier(one).fit(x, label).estimators_
        return np.concatenate([e.coef_ for e in rest]), np.concatenate([e.intercept_ for e in rest])
    found = one.fit(x, label)
    weight = np.concatenate([np.zeros_like(found.coef_), found.coef_])
    return weight, np.concatenate([np.zeros(1), found.intercept_])
