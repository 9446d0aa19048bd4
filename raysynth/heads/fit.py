"""Stage 2: the heads of a snapshot of the encoder, how each is fitted, and on what it is judged.

Every objective is a function from specs and what is seen of the images to `Fitted` heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.groups.balance import balanced_subset, image_weights
from raysynth.heads.regression import fit_heads, fit_robust_heads
from raysynth.heads.seen import Fit, Fitted, Seen, judged_by_all, on_device
from raysynth.heads.spec import HeadSpec
from raysynth.networks.linear import Head

DRAWS = 10
"""Balanced subsets that `dfr` averages over (Kirichenko et al. 2023: 10 on training images)."""


def fit_all(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """Every head of a plan on one snapshot, by name; heads of one objective are fitted together."""
    found: dict[str, Fitted] = {}
    for objective in dict.fromkeys(spec.objective for spec in specs):
        mine = [spec for spec in specs if spec.objective == objective]
        found |= _fit_of(objective)(mine, seen)
    return found


def _fit_of(objective: str) -> Fit:
    # scikit-learn takes a second of every process: only where a head needs it.
    if objective == "dfr_train":
        from raysynth.heads.dfr_train import fit_dfr_train as fit
    elif objective == "dfr_validation":
        from raysynth.heads.dfr_validation import fit_dfr_validation as fit
    elif objective == "self":
        from raysynth.heads.self_disagreement import fit_self as fit
    else:
        fit = {"trained": _trained, "group_dro": _robust, "dfr": _averaged}.get(
            objective, _weighted
        )
    return fit


def _trained(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    return {spec.name: Fitted(None, seen.features.logits.argmax(axis=1)) for spec in specs}


def _weighted(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """`erm` and `balanced`: every image, or every group, weighs the same; and of each kind."""
    real = on_device(seen)
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


def _robust(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """`group_dro`: the worst group counts."""
    train = seen.data.train
    decays = [spec.weight_decay for spec in specs]
    heads = fit_robust_heads(on_device(seen), train.label, train.group, decays, seen.classes)
    return judged_by_all(specs, heads, seen)


def _averaged(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """`dfr`: the mean of heads fitted to group-balanced subsets, standardised by all images."""
    train, decays = seen.data.train, [spec.weight_decay for spec in specs]
    features = on_device(seen)
    scale, sums = features.std(dim=0), None
    for draw in range(DRAWS):
        rows = balanced_subset(train.group, seen.seed + draw)
        even = np.full(len(rows), 1 / len(rows))
        found = fit_heads(features[rows], train.label[rows], even, decays, seen.classes, scale)
        sums = found if sums is None else tuple(map(_added, sums, found))
    assert sums is not None
    heads = [Head(head.weight / DRAWS, head.bias / DRAWS) for head in sums]
    return judged_by_all(specs, heads, seen)


def _added(one: Head, other: Head) -> Head:
    return replace(one, weight=one.weight + other.weight, bias=one.bias + other.bias)
