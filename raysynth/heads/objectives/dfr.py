"""DFR with a swept weight decay: the mean of heads fitted to group-balanced subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysynth.groups.balance import balanced_subset
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec

SUBSETS = 10
"""Balanced subsets that are averaged over (Kirichenko et al. 2023: 10 on training images)."""


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """Features are standardised by all training images."""
    import torch

    from raysynth.heads.judging import judged_by_all
    from raysynth.heads.regression import fit_heads
    from raysynth.networks.linear import Head

    train, decays = seen.data.train, [spec.weight_decay for spec in specs]
    features = torch.tensor(seen.features.train, device=seen.device)
    scale, drawn = features.std(dim=0), []
    for draw in range(SUBSETS):
        rows = balanced_subset(train.group, seen.seed + draw)
        even = np.full(len(rows), 1 / len(rows))
        found = fit_heads(features[rows], train.label[rows], even, decays, seen.classes, scale)
        drawn.append(found)
    heads = [
        Head(sum(one.weight for one in of) / SUBSETS, sum(one.bias for one in of) / SUBSETS)
        for of in zip(*drawn, strict=True)
    ]
    return judged_by_all(specs, heads, seen)


PART = HeadObjective(
    "DFR, swept",
    "after Kirichenko et al. 2023 (arXiv 2204.02937): our regression on their subsets",
    _fit,
    schedules=("head",),
)
