"""What a control is: an embedding that the base model already has, and a balanced head on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.config.config import Config
from raysynth.groups.balance import image_weights
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import group_metrics
from raysynth.heads.regression import fit_heads
from raysynth.models.device import use_threads
from raysynth.networks.images import ImageSet
from raysynth.training.data import load_real

Embedder = Callable[[ImageSet], NDArray[np.float32]]


@dataclass(frozen=True)
class Control:
    """A row that isolates what the base model knows by itself: nothing is generated.

    `load`: (configuration, side of the images in pixels) -> images to embeddings [N, D].
    """

    name: str
    source: str
    load: Callable[[Config, int], Embedder]

    def budget(self, config: Config) -> dict[str, Any]:
        """What validation chose among; no encoder is trained."""
        heads = len(config.references.head_weight_decays)
        return {"trainings": 0, "stopping_points": 1, "heads_each": heads}


def run_control(control: Control, config: Config, real: str, groups: Groups) -> dict[str, Any]:
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
    embed = control.load(config, train.size)
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
