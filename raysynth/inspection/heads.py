"""What linear heads on frozen features do in each group: plain, and balanced over groups.

The features know nothing of the labels, nothing is tuned, and accuracies are of validation images,
which neither head has seen; test stays unread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysynth.inspection.seen import Seen

STRENGTH = 0.1
"""scikit-learn's C on standardised features; not chosen on these data."""
PLAIN, BALANCED = "plain", "balanced"


@dataclass(frozen=True)
class Head:
    """Validation accuracies, shares of 1, of every group that has images there."""

    name: str
    accuracy: NDArray[np.float64]
    """[G]; NaN: no image."""
    images: NDArray[np.int64]
    """[G] validation images."""

    @property
    def worst(self) -> int:
        """The group of the lowest accuracy."""
        return int(np.nanargmin(self.accuracy))

    @property
    def wga(self) -> float:
        """Worst-group accuracy."""
        return float(np.nanmin(self.accuracy))

    @property
    def aga(self) -> float:
        """Mean over groups."""
        return float(np.nanmean(self.accuracy))

    @property
    def error(self) -> float:
        """Standard error of the worst group's accuracy, by Wilson's centre for small numbers."""
        n = int(self.images[self.worst])
        share = (self.wga * n + 2) / (n + 4)
        return float(np.sqrt(share * (1 - share) / (n + 4)))


def heads(
    features: NDArray[np.float32], seen: Seen, group: NDArray[np.int64], count: int
) -> list[Head]:
    """The plain and the balanced head; group [N] of `count`: by it they differ and are measured."""
    train, validation = seen.of("train"), seen.of("validation")
    label = seen.column("label")
    sizes = np.bincount(group[train], minlength=count)
    weight = {PLAIN: None, BALANCED: 1.0 / sizes[group[train]]}
    images = np.bincount(group[validation], minlength=count)
    found = []
    for name, weights in weight.items():
        predicted = _fitted(features, label, train, weights, validation)
        right = np.bincount(group[validation], predicted == label[validation], minlength=count)
        accuracy = np.where(images > 0, right / np.maximum(images, 1), np.nan)
        found.append(Head(name, accuracy, images))
    return found


def _fitted(
    features: NDArray[np.float32],
    label: NDArray[np.int64],
    train: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    measured: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Labels that a logistic regression on the training rows gives the measured ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaled = None if weights is None else weights * len(weights) / weights.sum()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000))
    model.fit(features[train], label[train], logisticregression__sample_weight=scaled)
    predicted: NDArray[np.int64] = model.predict(features[measured])
    return predicted


def agreement(label: NDArray[np.int64], attribute: NDArray[np.int64]) -> float:
    """Cramér's V of two columns: 0 independent, 1 each tells the other."""
    table = np.zeros((label.max() + 1, attribute.max() + 1))
    np.add.at(table, (label, attribute), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    chi = ((table - expected) ** 2 / expected).sum()
    least = min(table.shape) - 1
    return float(np.sqrt(chi / (table.sum() * least))) if least else 0.0
