"""Group metrics: per-group accuracy, worst group (WGA), average of groups (AGA), weighted average.

Published tables mix up the last two. With four groups an unweighted mean cannot exceed
(WGA + 3) / 4; where a paper's "average" does, it is the weighted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.groups import Groups


@dataclass(frozen=True)
class GroupMetrics:
    """Accuracy of each group and its three summaries, shares in [0, 1]."""

    groups: tuple[float, ...]
    wga: float
    aga: float
    weighted: float

    @property
    def score(self) -> float:
        """What models are chosen by: WGA; AGA only breaks ties (validation groups are small)."""
        return self.wga + 1e-3 * self.aga

    def to_dict(self, groups: Groups) -> dict[str, Any]:
        """JSON-able, groups by name."""
        names = [groups.name(g) for g in range(groups.count)]
        return {
            "wga": self.wga,
            "aga": self.aga,
            "weighted": self.weighted,
            "groups": dict(zip(names, self.groups, strict=True)),
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
    ValueError
        When a group has no image to be measured on.
    """
    count = len(train_counts)
    sizes = np.bincount(group, minlength=count)
    if (sizes == 0).any():
        raise ValueError(f"group(s) {np.flatnonzero(sizes == 0).tolist()} have no image to measure")
    right = np.bincount(group, weights=predicted == label, minlength=count)
    accuracy = right / sizes
    shares = np.asarray(train_counts) / np.sum(train_counts)
    return GroupMetrics(
        tuple(float(value) for value in accuracy),
        float(accuracy.min()),
        float(accuracy.mean()),
        float((accuracy * shares).sum()),
    )


def over_seeds(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """`{wga, aga, weighted, groups}`, each `{mean, std, seeds}`, of `GroupMetrics.to_dict` records.

    `groups` holds one such record per group name; `std` is the sample standard deviation (n - 1),
    0 for one seed.
    """
    return {
        **{key: _spread([record[key] for record in metrics]) for key in ("wga", "aga", "weighted")},
        "groups": {
            name: _spread([record["groups"][name] for record in metrics])
            for name in metrics[0]["groups"]
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "seeds": values}
