"""Ray Train's trainer of workers that exchange gradients: one process group."""

from __future__ import annotations

from ray.train.torch import TorchTrainer

from raysynth.finetune.trainer import LocalTrainer


class LocalTorchTrainer(LocalTrainer, TorchTrainer):
    """The trainer of a local Ray."""


def trainer_of(*, local: bool) -> type[TorchTrainer]:
    """The trainer's class; `local`: the workers have a Ray of their own on this machine."""
    return LocalTorchTrainer if local else TorchTrainer
