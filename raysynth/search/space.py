"""What is searched: a Tune space from the configuration, and the points tried first."""

from __future__ import annotations

from typing import Any

from ray import tune

from raysynth.networks.settings import ClassifierConfig
from raysynth.search.settings import RANGES, SearchConfig
from raysynth.training.two_stage import REAL_SHARE, configured


def search_space(classifier: ClassifierConfig, search: SearchConfig) -> dict[str, Any]:
    """Tune's domains by parameter; a range of one value is a constant."""
    search = search.settled(classifier)
    space: dict[str, Any] = {"ratio": tune.choice(list(search.ratios))}
    if search.real_shares:
        space[REAL_SHARE] = tune.choice(list(search.real_shares))
    for name in RANGES:
        low, high = span(search, name)
        if low == high:
            space[name] = low
        elif name == "steps":
            space[name] = tune.randint(int(low), int(high) + 1)
        else:
            space[name] = (tune.uniform if name == "beta" else tune.loguniform)(low, high)
    return space


def first_points(classifier: ClassifierConfig, search: SearchConfig) -> list[dict[str, Any]]:
    """The configured values at every ratio, clipped to the ranges: the largest first, then 0.

    So the real-only classifier is always tried, however few the trials. Then the other weights of
    real images at the largest ratio, where they are searched.
    """
    start, values, search = configured(classifier), {}, search.settled(classifier)
    for name in RANGES:
        low, high = span(search, name)
        if low < high:
            values[name] = min(max(start[name], low), high)
    ratios = sorted(set(search.ratios), reverse=True)
    ordered = sorted(ratios, key=lambda ratio: (ratio != ratios[0], ratio != 0))
    points = [{"ratio": ratio, **values} for ratio in ordered]
    if not search.real_shares:
        return points
    nearest = sorted(set(search.real_shares), key=lambda share: abs(share - classifier.real_share))
    others = [{"ratio": ratios[0], **values, REAL_SHARE: share} for share in nearest[1:]]
    return [*({**point, REAL_SHARE: nearest[0]} for point in points), *others]


def span(search: SearchConfig, name: str) -> tuple[float, float]:
    """[low, high] of a searched parameter; `search`: settled."""
    low, high = getattr(search, RANGES[name])
    return low, high
