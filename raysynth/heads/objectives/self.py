"""SELF's head: the one trained along, fine-tuned on held-out images where two networks disagree."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    from raysynth.heads.self_disagreement import fit_self

    return fit_self(specs, seen)


PART = HeadObjective(
    "SELF",
    "LaBonte et al. 2023 (arXiv 2309.08534), early-stop disagreement SELF; their code",
    _fit,
    swept=False,
    uses_validation=True,
)
