"""Learning rates that a network has by itself, where the configuration gives none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of the trainings of one network."""

    stage_one: float
    full: float
    """Of stage 2, where it trains all weights."""
    references: tuple[float, ...]
    """Tried for every reference and mixture."""
    searched: tuple[float, float]
    """The range that is searched for stage 1."""


FROM_SCRATCH = Rates(3e-3, 1e-3, (3e-3,), (1e-3, 6e-3))
"""The small network's, whatever it starts from, and those of any network from random weights."""
PRETRAINED = Rates(1e-4, 1e-4, (1e-4,), (1e-5, 1e-3))
"""Those of pretrained `clip` and transformers backbones, which the small network's spoil
(docs/decisions/028-backbones.md)."""
