"""A control's row: a group-balanced head on its embedding, tuned by validation, tried on test."""

from __future__ import annotations

from typing import Any

import torch

from raysynth.config.config import Config
from raysynth.groups.balance import image_weights
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import group_metrics
from raysynth.heads.regression import fit_heads
from raysynth.models.device import use_threads
from raysynth.references.control import CONTROLS
from raysynth.training.data import load_real


def run_control(name: str, config: Config, real: str, groups: Groups) -> dict[str, Any]:
    """Fit a group-balanced logistic head on the real training images' embeddings.

    Its weight decay is chosen by validation WGA among `references.head_weight_decays`. Nothing is
    random, so there is one seed.

    Returns
    -------
    `predicted` [M] on test, `validation` metrics, `chosen` settings.
    """
    use_threads(config.resources.cpus_per_worker)
    train = load_real(real, "train", config.classifier.image_size)
    validation, test = (load_real(real, split, train.size) for split in ("validation", "test"))
    embed = CONTROLS[name].load(config, train.size)
    decays = config.references.head_weight_decays
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
