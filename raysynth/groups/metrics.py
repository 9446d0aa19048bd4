"""Group metrics: per-group accuracy, worst group (WGA), average of groups (AGA), weighted average.

Published tables mix up the last two. With four groups an unweighted mean cannot exceed
(WGA + 3) / 4; where a paper's "average" does, it is the weighted one. Demographic parity is
fairlearn's; its equalized odds are taken over the rates that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.errors import DataError
from raysynth.groups.groups import Groups

RESAMPLES = 2000
CHUNK = 100
"""Resamples drawn at once: bounds the memory for large test groups."""
SCORE_OF_AGA = 1e-3
"""What AGA weighs beside WGA in a score: it only breaks ties (validation groups are small)."""


class EmptyGroupError(DataError, ValueError):
    """A group has no image: a worst group among the others would be another number."""


@dataclass(frozen=True)
class GroupMetrics:
    """Accuracy of each group and its three summaries, shares in [0, 1]."""

    groups: tuple[float, ...]
    wga: float
    aga: float
    weighted: float

    @property
    def score(self) -> float:
        """What models are chosen by: WGA, ties broken by AGA."""
        return self.wga + SCORE_OF_AGA * self.aga

    def to_dict(self, groups: Groups) -> dict[str, Any]:
        """JSON-able, groups by name."""
        return {
            "wga": self.wga,
            "aga": self.aga,
            "weighted": self.weighted,
            "groups": dict(zip(groups.names, self.groups, strict=True)),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GroupMetrics:
        """Inverse of `to_dict`."""
        return cls(
            tuple(values["groups"].values()), values["wga"], values["aga"], values["weighted"]
        )


def group_metrics(
    predicted: NDArray[Any], label: NDArray[Any], group: NDArray[Any], train_counts: NDArray[Any]
) -> GroupMetrics:
    """Metrics of predictions.

    Parameters
    ----------
    predicted, label, group : [N] int.
    train_counts : [G] training images per group: the weights of `weighted` (Sagawa et al. 2020,
        arXiv 1911.08731, report averages weighted by the training distribution).

    Raises
    ------
    EmptyGroupError
        When a group has no image to be measured on, or there is no training image.
    """
    count, total = len(train_counts), np.sum(train_counts)
    sizes = np.bincount(group, minlength=count)
    if len(sizes) > count or (sizes == 0).any() or not total > 0:
        raise EmptyGroupError(
            f"metrics: got {sizes.tolist()} images of the groups 0, 1, ... and {total} training "
            f"images; group(s) {np.flatnonzero(sizes == 0).tolist()} have no image to measure; "
            f"expected one at least of each of the {count}. Fix: add such images to the split, or "
            "drop that label or attribute from the metadata"
        )
    right = np.bincount(group, weights=predicted == label, minlength=count)
    accuracy = right / sizes
    shares = np.asarray(train_counts) / total
    return GroupMetrics(
        tuple(float(value) for value in accuracy),
        float(accuracy.min()),
        float(accuracy.mean()),
        float((accuracy * shares).sum()),
    )


def fairness(
    predicted: NDArray[Any], label: NDArray[Any], attribute: NDArray[Any]
) -> dict[str, float | None]:
    """Equalized-odds and demographic-parity difference between the attributes; 0 is fair.

    Of two labels, those of the second; of more, the largest of each label against the others.
    Equalized odds are None where no rate exists for two attributes: nothing is compared.
    """
    from fairlearn.metrics import demographic_parity_difference

    labels = np.unique(label)
    odds: list[float] = []
    parity = 0.0
    for one in labels[1:] if len(labels) == 2 else labels:
        truth, answer = label == one, predicted == one
        odds += _odds(truth, answer, attribute)
        value = demographic_parity_difference(truth, answer, sensitive_features=attribute)
        parity = max(parity, float(value))
    return {"equalized_odds": max(odds, default=None), "demographic_parity": parity}


def _odds(truth: NDArray[Any], answer: NDArray[Any], attribute: NDArray[Any]) -> list[float]:
    """Differences of the true and of the false positive rate between the attributes.

    fairlearn counts the rate of an attribute without such images as 0, so that perfect predictions
    are called as unfair as can be; here only rates that exist are compared.
    """
    found = []
    for asked in (truth, ~truth):
        there = (answer[asked & (attribute == a)] for a in np.unique(attribute))
        rates = [float(part.mean()) for part in there if len(part)]
        if len(rates) > 1 or len(np.unique(attribute)) == 1 == len(rates):
            found.append(max(rates) - min(rates))
    return found


def bootstrap_interval(
    right: NDArray[np.bool_], group: NDArray[Any], resamples: int = RESAMPLES
) -> dict[str, list[float]]:
    """95 % percentile intervals of WGA and AGA, each averaged over seeds.

    Test images are drawn with replacement within each group, the same ones for all seeds
    (stratified bootstrap; Efron & Tibshirani 1993, chapter 13), so the interval says how much the
    test images matter; what the training seeds matter is the spread over seeds.

    Parameters
    ----------
    right : [S, N], whether each seed's classifier is right on each image; group : [N] int.
    """
    rng = np.random.default_rng(0)
    accuracy = np.stack(
        [_resampled(right[:, group == g], resamples, rng) for g in np.unique(group)]
    )  # [G, R, S]
    draws = {"wga": accuracy.min(axis=0).mean(axis=1), "aga": accuracy.mean(axis=(0, 2))}
    return {
        key: [float(bound) for bound in np.percentile(values, (2.5, 97.5))]
        for key, values in draws.items()
    }


def _resampled(
    right: NDArray[np.bool_], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[R, S] accuracies of one group's images drawn anew; right [S, n]."""
    size = right.shape[1]
    parts = []
    for start in range(0, resamples, CHUNK):
        times = rng.multinomial(size, np.full(size, 1 / size), min(CHUNK, resamples - start))
        parts.append(times @ right.T / size)
    return np.concatenate(parts)


def over_seeds(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Every number of the seeds' records (`GroupMetrics.to_dict`, perhaps more) as a spread.

    A spread is `{mean, std, seeds}`; `groups` holds one per group name; `std` is the sample
    standard deviation (n - 1), 0 for one seed. What a seed has no number of has none as a whole.
    """
    return {
        key: over_seeds([record[key] for record in metrics])
        if isinstance(value, dict)
        else _spread([record[key] for record in metrics])
        for key, value in metrics[0].items()
    }


def _spread(values: list[float | None]) -> dict[str, Any]:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return {"mean": None, "std": None, "seeds": values}
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
    return {"mean": float(np.mean(numbers)), "std": std, "seeds": values}
