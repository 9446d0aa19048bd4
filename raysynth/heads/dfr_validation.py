"""DFR's heads fitted to held-out balanced images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.groups.balance import balanced_subset
from raysynth.groups.metrics import group_metrics
from raysynth.heads.logistic import STRENGTHS, averaged_regression, standardisation
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadSpec
from raysynth.networks.linear import Head

DRAWS = 20


def fit_dfr_validation(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """The head on one snapshot; judged by the half that it was not tuned on."""
    validation, features = seen.data.validation, seen.features.validation
    assert seen.features.train is not None
    fit, judge = halves(validation.group, seen.seed)
    first = fit[balanced_subset(validation.group[fit], seen.seed)]
    draws = [balanced_subset(validation.group, seen.seed + d) for d in range(DRAWS)]
    statistics = standardisation(seen.features.train)
    found: dict[str, Fitted] = {}
    for spec in specs:
        fixed = (spec.penalty, *statistics, seen.device)
        tried: dict[float, tuple[float, NDArray[np.int64]]] = {}
        for strength in STRENGTHS:
            head = averaged_regression(features, validation.label, [first], strength, *fixed)
            tried[strength] = score_of(head, seen, judge)
        best = max(STRENGTHS, key=lambda strength: tried[strength][0])
        final = averaged_regression(features, validation.label, draws, best, *fixed)
        found[spec.name] = Fitted(final, tried[best][1], judge, {"C": best})
    return found


def halves(group: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted rows to train on and rows to tune on: half of each group each, at random.

    Of an odd number the tuning half gets one more; a group of one image, which the stage refuses,
    would tune only.
    """
    rng = np.random.default_rng([seed, 307])
    fit = [
        rng.permutation(rows)[: len(rows) // 2]
        for rows in (np.flatnonzero(group == g) for g in np.unique(group))
    ]
    first = np.sort(np.concatenate(fit))
    return first, np.setdiff1d(np.arange(len(group)), first)


def score_of(head: Head, seen: Seen, rows: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
    """The head's score on some validation rows, and its predictions on all of them [M]."""
    data = seen.data
    predicted = head.predict(torch.tensor(seen.features.validation, device=seen.device))
    counts = data.train.counts(data.groups.count)
    label, group = data.validation.label[rows], data.validation.group[rows]
    return group_metrics(predicted[rows], label, group, counts).score, predicted
