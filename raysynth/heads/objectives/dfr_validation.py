"""DFR's heads fitted to held-out balanced images; judged by the half they were not tuned on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.balance import balanced_subset
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec

SUBSETS = 20


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    from raysynth.heads.judging import halves, predicted_by, score_on
    from raysynth.heads.logistic import STRENGTHS, averaged_regression, standardisation

    validation, features = seen.data.validation, seen.features.validation
    assert seen.features.train is not None
    half, judge = halves(validation.group, seen.seed)
    first = half[balanced_subset(validation.group[half], seen.seed)]
    subsets = [balanced_subset(validation.group, seen.seed + draw) for draw in range(SUBSETS)]
    statistics = standardisation(seen.features.train)
    found: dict[str, Fitted] = {}
    for spec in specs:
        fixed = (spec.penalty, *statistics, seen.device)
        tried: dict[float, tuple[float, NDArray[np.int64]]] = {}
        for strength in STRENGTHS:
            head = averaged_regression(features, validation.label, [first], strength, *fixed)
            predicted = predicted_by(head, seen)
            tried[strength] = score_on(judge, predicted, seen), predicted
        best = max(STRENGTHS, key=lambda strength: tried[strength][0])
        final = averaged_regression(features, validation.label, subsets, best, *fixed)
        found[spec.name] = Fitted(final, tried[best][1], judge, {"C": best})
    return found


PART = HeadObjective(
    "DFR on validation images",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Validation-Train; their code",
    _fit,
    swept=False,
    uses_validation=True,
)
