"""Stage 2: the heads of a snapshot of the encoder, those of one objective fitted together."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HEAD_OBJECTIVES, HeadSpec


def fit_all(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """Every head of a plan on one snapshot, by name."""
    found: dict[str, Fitted] = {}
    for objective in dict.fromkeys(spec.objective for spec in specs):
        mine = [spec for spec in specs if spec.objective == objective]
        found |= HEAD_OBJECTIVES[objective].fit(mine, seen)
    return found
