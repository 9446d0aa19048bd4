"""DFR's heads fitted to group-balanced subsets of the training images, averaged."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.groups.balance import balanced_subset
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec

SUBSETS = 10


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """The inverse penalty is chosen by all of validation, on the first subset."""
    from raysynth.heads.judging import predicted_by, score_on
    from raysynth.heads.logistic import STRENGTHS, averaged_regression, standardisation

    train, features = seen.data.train, seen.features.train
    assert features is not None
    subsets = [balanced_subset(train.group, seen.seed + draw) for draw in range(SUBSETS)]
    statistics = standardisation(features)
    found: dict[str, Fitted] = {}
    for spec in specs:
        fixed = (spec.penalty, *statistics, seen.device)
        scores = {}
        for strength in STRENGTHS:
            head = averaged_regression(features, train.label, subsets[:1], strength, *fixed)
            scores[strength] = score_on(slice(None), predicted_by(head, seen), seen)
        best = max(STRENGTHS, key=lambda strength: scores[strength])
        head = averaged_regression(features, train.label, subsets, best, *fixed)
        found[spec.name] = Fitted(head, predicted_by(head, seen), chosen={"C": best})
    return found


PART = HeadObjective(
    "DFR on training images",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Train-Train; their code",
    _fit,
    swept=False,
)
