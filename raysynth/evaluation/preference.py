"""What validation prefers among a run's classifiers, when it is not the one that ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysynth.evaluation.kinds import KINDS


def preferred(methods: Mapping[str, Mapping[str, Any]], shipped: str) -> dict[str, Any] | None:
    """The method of the best mean validation WGA, if it is better than that of the shipped one.

    References, mixtures and controls all were chosen by the same validation images, so each counts;
    `uses_validation` says who trains on a part of these and is judged by the rest.

    Parameters
    ----------
    methods : as in results.json; shipped : the key of the method that is shipped.

    Returns
    -------
    `name`, `kind`, `uses_validation`, `validation_wga`, `shipped`, `shipped_validation_wga`; None
    where validation prefers the shipped one, or says the same of both.
    """
    scores = {name: _score(values) for name, values in methods.items()}
    if scores.get(shipped) is None:
        return None
    known = {name: score for name, score in scores.items() if score is not None}
    best = max(known, key=lambda name: (known[name], name == shipped))
    if best == shipped:
        return None
    return {
        "name": best,
        "kind": methods[best]["kind"],
        "uses_validation": bool(methods[best]["uses_validation"]),
        "validation_wga": known[best],
        "shipped": shipped,
        "shipped_validation_wga": known[shipped],
    }


def in_words(found: Mapping[str, Any], title: str) -> str:
    """A sentence on `preferred`; `title`: what the preferred method is called."""
    kind = KINDS[found["kind"]].told if found["kind"] in KINDS else str(found["kind"])
    partly = "; it trains on a part of validation" if found["uses_validation"] else ""
    return (
        f"Validation prefers {title} ({kind}{partly}): mean validation WGA "
        f"{100 * found['validation_wga']:.1f} % against "
        f"{100 * found['shipped_validation_wga']:.1f} %. The shipped classifier is "
        f"{found['shipped']}'s all the same."
    )


def _score(values: Mapping[str, Any]) -> float | None:
    score = values.get("validation", {}).get("wga", {}).get("mean")
    return None if score is None else float(score)
