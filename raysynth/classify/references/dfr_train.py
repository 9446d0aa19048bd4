"""DFR on training images: ERM features, last layers fitted to group-balanced subsets, averaged."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.classify.metrics import group_metrics
from raysynth.classify.plan import HeadSpec
from raysynth.classify.references.logistic import STRENGTHS, averaged_regression, standardisation
from raysynth.classify.references.reference import Reference, plain
from raysynth.classify.stage_two import Fitted, Seen, judged_by_all
from raysynth.classify.trainset import balanced_subset

DRAWS = 10

DFR_TRAIN = Reference(
    "dfr_train",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Train-Train; their code",
    plain,
    lambda config: (HeadSpec("dfr_train", penalty=config.dfr_penalty),),
)
"""The encoder is ERM's. Features are standardised by all training images; logistic regressions with
an L1 penalty are fitted to subsets with as many images of every group as the smallest has, the
inverse penalty C chosen by validation WGA on one subset, and the coefficients of ten subsets are
averaged. `references.dfr_penalty=l2` takes an L2 penalty."""


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
