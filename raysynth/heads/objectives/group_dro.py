"""Group-DRO's head: the worst group counts."""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadObjective, HeadSpec


def _fit(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    import torch

    from raysynth.heads.judging import judged_by_all
    from raysynth.heads.regression import fit_robust_heads

    train = seen.data.train
    decays = [spec.weight_decay for spec in specs]
    features = torch.tensor(seen.features.train, device=seen.device)
    heads = fit_robust_heads(features, train.label, train.group, decays, seen.classes)
    return judged_by_all(specs, heads, seen)


PART = HeadObjective(
    "Group-DRO",
    "Sagawa et al. 2020 (arXiv 1911.08731), equation 4, smoothed and solved to its end",
    _fit,
    schedules=("head", "full"),
    robust=True,
)
