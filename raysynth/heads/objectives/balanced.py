"""Cross-entropy in which every group weighs the same, with an L2 penalty."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    from raysynth.heads.weighted import fit_weighted

    return fit_weighted(specs, seen)


PART = HeadObjective(
    "Group-balanced",
    "after Kirichenko et al. 2023 (arXiv 2204.02937): weights in place of subsets",
    _fit,
    mixed=True,
    schedules=("head", "full", "joint"),
)
