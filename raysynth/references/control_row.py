"""A control's row: a group-balanced head on its embedding, tuned by validation, tried on test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from raysynth.groups.balance import image_weights
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import group_metrics
from raysynth.heads.regression import fit_heads
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.references.control import CONTROLS
from raysynth.training.data import load_real


def run_control(
    name: str,
    blueprint: Blueprint,
    decays: Sequence[float],
    real: str,
    groups: Groups,
    batch: int,
    cpus: float,
) -> dict[str, Any]:
    """Fit a group-balanced logistic head on the real training images' embeddings.

    Its weight decay is chosen by validation WGA among `decays`. Nothing is random, so there is one
    seed. `batch`: images embedded at once; `cpus`: of this worker.

    Returns
    -------
    `predicted` [M] on test, `validation` metrics, `chosen` settings.
    """
    use_threads(cpus)
    train = load_real(real, "train", blueprint.classifier.image_size)
    validation, test = (load_real(real, split, train.size) for split in ("validation", "test"))
    embed = CONTROLS[name].load(blueprint, train.size, batch)
    heads = fit_heads(
        torch.from_numpy(embed(train)),
        train.label,
        image_weights(train.group, "balanced"),
        decays,
        len(groups.label_names),
    )
    seen, counts = torch.from_numpy(embed(validation)), train.counts(groups.count)
    metrics = [
        group_metrics(head.predict(seen), validation.label, validation.group, counts)
        for head in heads
    ]
    best = max(range(len(heads)), key=lambda index: metrics[index].score)
    return {
        "predicted": heads[best].predict(torch.from_numpy(embed(test))),
        "validation": metrics[best].to_dict(groups),
        "chosen": {"head_weight_decay": decays[best]},
    }
