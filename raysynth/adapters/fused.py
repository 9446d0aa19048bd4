"""Adapters that an image is drawn with together, as one name says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

AND, TIMES = "+", "*"
SALT = 0x10F7
DIGITS = 3
"""Of a weight."""


def is_fused(name: str) -> bool:
    """Whether a name says several adapters."""
    return AND in name


def fused_name(weights: Mapping[str, float]) -> str:
    """One name for adapters and their weights: `0-3*0.413+0-7*0.587`."""
    return AND.join(f"{name}{TIMES}{weight:.{DIGITS}f}" for name, weight in weights.items())


def weights_of(name: str) -> dict[str, float]:
    """Adapter -> weight, of what `fused_name` gave; of a single adapter 1."""
    if not is_fused(name):
        return {name: 1.0}
    pairs = (part.rpartition(TIMES) for part in name.split(AND))
    return {adapter: float(weight) for adapter, _, weight in pairs}


def drawn_name(names: Sequence[str], count: int, seed: int) -> str:
    """Some of the adapters, weighted at random, a function of an image's seed alone.

    Kim et al. 2025 (arXiv 2505.11703) fuse adapters of single images of a class; which, and how
    strongly, is drawn anew for every image: weights uniform among those whose sum is 1.
    """
    dice = np.random.default_rng([seed, SALT])
    chosen = sorted(dice.choice(len(names), min(count, len(names)), replace=False).tolist())
    if len(chosen) < 2:
        return names[chosen[0]]
    weights = np.round(dice.dirichlet(np.ones(len(chosen))), DIGITS)
    weights[-1] = 1 - weights[:-1].sum()
    return fused_name({names[c]: w for c, w in zip(chosen, weights.tolist(), strict=True)})
