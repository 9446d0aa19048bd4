"""Ray Train's trainer without the processes that a training on one machine has no use for."""

from __future__ import annotations

from typing import Any

# TorchTrainer's base: the workers exchange nothing, so they need no process group, which
# accelerate would take for a distributed training of one model.
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

SPARED = ("PlacementGroupCleanerCallback", "DatasetsCallback")
"""Ray's callbacks with an actor each, 4 and 3 CPU seconds on one machine: for placement groups
whose controller died, which a local Ray does not outlive, and for data sets, of which there are
none."""


class LocalTrainer(DataParallelTrainer):
    """The trainer of a local Ray; also before another trainer, as the first of two bases."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ not in SPARED]


def trainer_kind(*, local: bool) -> type[DataParallelTrainer]:
    """The trainer's class; `local`: the run has a Ray of its own on this machine."""
    return LocalTrainer if local else DataParallelTrainer
