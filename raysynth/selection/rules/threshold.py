"""Scores from `selection.threshold` on, a cosine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raysynth.selection.rule import Rule, Scored
from raysynth.selection.settings import SelectionConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _may(scored: Scored, config: SelectionConfig) -> NDArray[np.bool_]:
    assert config.threshold is not None, "the section asks for it"
    enough: NDArray[np.bool_] = scored.score >= config.threshold
    return enough


def _none(name: str, best: float, config: SelectionConfig) -> str:
    return (
        f"selection.threshold={config.threshold}: the best candidate of group {name} scores "
        f"{best:.4f}; expected one at least that reaches the threshold. Fix: selection.threshold="
        f"{math.floor(best * 100) / 100:.2f} or lower, or selection.rule=quantile"
    )


PART = Rule(
    "Absolute threshold",
    "ours",
    lambda config: f"those with a CLIP score of {config.threshold} or more",
    may=_may,
    none=_none,
    threshold=True,
)
