"""DFR's heads fitted to group-balanced subsets of the training images, averaged."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.groups.balance import balanced_subset
from raysynth.groups.metrics import group_metrics
from raysynth.heads.logistic import STRENGTHS, averaged_regression, standardisation
from raysynth.heads.seen import Fitted, Seen, judged_by_all
from raysynth.heads.spec import HeadSpec

DRAWS = 10


def fit_dfr_train(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """The head on one snapshot."""
    train, features = seen.data.train, seen.features.train
    assert features is not None
    subsets = [balanced_subset(train.group, seen.seed + draw) for draw in range(DRAWS)]
    statistics = standardisation(features)
    found: dict[str, Fitted] = {}
    for spec in specs:
        fixed = (spec.penalty, *statistics, seen.device)
        scores = {}
        for strength in STRENGTHS:
            head = averaged_regression(features, train.label, subsets[:1], strength, *fixed)
            scores[strength] = _score(judged_by_all([spec], [head], seen)[spec.name], seen)
        best = max(STRENGTHS, key=lambda strength: scores[strength])
        head = averaged_regression(features, train.label, subsets, best, *fixed)
        fitted = judged_by_all([spec], [head], seen)[spec.name]
        found[spec.name] = Fitted(head, fitted.predicted, chosen={"C": best})
    return found


def _score(fitted: Fitted, seen: Seen) -> float:
    validation, counts = seen.data.validation, seen.data.train.counts(seen.data.groups.count)
    return group_metrics(fitted.predicted, validation.label, validation.group, counts).score
