"""Heads fitted to weighted images: every image, or every group, weighs the same; and each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.groups.balance import image_weights
from raysynth.heads.judging import judged_by_all
from raysynth.heads.regression import fit_heads
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadSpec


def fit_weighted(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """`erm` and `balanced`, by `image_weights`; those of one real share are solved together."""
    real = torch.tensor(seen.features.train, device=seen.device)
    scale = real.std(dim=0)
    found: dict[str, Fitted] = {}
    for share in dict.fromkeys(spec.real_share for spec in specs):
        mine = [spec for spec in specs if spec.real_share == share]
        features, label, weights = _weighed(mine[0], seen, real)
        decays = [spec.weight_decay for spec in mine]
        heads = fit_heads(features, label, weights, decays, seen.classes, scale)
        found |= judged_by_all(mine, heads, seen)
    return found


def _weighed(
    spec: HeadSpec, seen: Seen, real: torch.Tensor
) -> tuple[torch.Tensor, NDArray[np.int64], NDArray[np.float64]]:
    """Features [I, D], labels [I] and weights [I], sum 1, of the images that a head is fitted to.

    `real`: features [N, D] of the real training images, which come first.
    """
    train = seen.data.train
    weights = image_weights(train.group, spec.objective)
    if spec.real_share == 1:
        return real, train.label, weights
    assert seen.features.synthetic is not None, "encoded for plans with such a head"
    rows, found = seen.features.synthetic
    made = seen.data.synthetic
    more = image_weights(made.group[rows], spec.objective)
    return (
        torch.cat([real, torch.tensor(found, device=seen.device)]),
        np.concatenate([train.label, made.label[rows]]),
        np.concatenate([spec.real_share * weights, (1 - spec.real_share) * more]),
    )
