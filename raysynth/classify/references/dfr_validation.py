"""DFR on validation images: ERM features, the last layer fitted to held-out balanced images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.classify.head import Head
from raysynth.classify.metrics import group_metrics
from raysynth.classify.plan import HeadSpec
from raysynth.classify.references.logistic import STRENGTHS, averaged_regression, standardisation
from raysynth.classify.references.reference import Reference, plain
from raysynth.classify.stage_two import Fitted, Seen
from raysynth.classify.trainset import balanced_subset

DRAWS = 20

DFR_VALIDATION = Reference(
    "dfr_validation",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Validation-Train; their code",
    plain,
    lambda config: (HeadSpec("dfr_validation", penalty=config.dfr_penalty),),
    uses_validation=True,
)
"""The encoder is ERM's. Half of the validation images fit the last layer (L1 logistic regression on
as many images of every group as the smallest has) and the other half chooses the inverse penalty C
and, here, the weight decay and the stopping point; then the coefficients of 20 such regressions on
random balanced subsets of all validation images are averaged. Features are standardised by the
training images. The halves are drawn within each group, where the authors' code draws them from all
images. Its validation score is that of the tuning half."""


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
