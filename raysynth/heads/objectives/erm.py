"""Cross-entropy on all images alike, with an L2 penalty."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    from raysynth.heads.weighted import fit_weighted

    return fit_weighted(specs, seen)


PART = HeadObjective(
    "Plain",
    "Basu et al. 2026 (arXiv 2511.08711), stage 2",
    _fit,
    mixed=True,
    schedules=("head", "full", "joint"),
    sampling="uniform",
)
