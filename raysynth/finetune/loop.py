"""The state of a worker's training: what is trained, who is in which slot.

Shape suffixes: S slots, P training adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from raysynth.finetune.engines import Trainee
from raysynth.finetune.learner import Learner
from raysynth.finetune.memory import Fit
from raysynth.finetune.objective import Objective
from raysynth.finetune.optimizer import Steps
from raysynth.finetune.packs import Pack
from raysynth.finetune.phase import Phase
from raysynth.finetune.scaling import LossScale
from raysynth.finetune.term import Added
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base
from raysynth.models.prediction import Predicted


@dataclass
class Loop:
    """The state of a worker's training."""

    pack: Pack
    base: Base
    """Encoders and scheduler; the trainee has the UNet."""
    trainee: Trainee
    fit: Fit
    objective: Objective
    knobs: Any
    """The objective's."""
    terms: tuple[Added, ...]
    """What is added to the objective's losses."""
    denoiser: Denoiser
    accelerator: Accelerator
    optimizer: Steps
    scale: LossScale
    alive: Tensor
    """[S] bool."""
    average: Tensor | None
    """[S, n] moving average of the weights."""
    parts: Tensor
    """[P, n] what each term has come to in the step that is taken."""
    laid: Phase | None = None
    """What rows were routed for last."""
    learners: list[Learner] = field(default_factory=list)
    """Those in training, by slot."""
    notes: list[str] = field(default_factory=list)
    """What the user is told of checkpoints."""

    @property
    def slots(self) -> int:
        """How many adapters may train at once."""
        return len(self.trainee.rows.values)

    def kept(self, slot: int) -> Tensor:
        """[n] what would be kept of a slot's adapter now: its weights, or an average of them."""
        return self.optimizer.kept(slot) if self.average is None else self.average[slot]


def route(loop: Loop, phase: Phase, learners: Sequence[Learner]) -> None:
    """Say which adapter each row of a phase uses."""
    rows = zip(learners, phase.columns, strict=True)
    loop.trainee.route([learner.slot for learner, own in rows for _ in range(len(own))])


def of_slot(loop: Loop, slot: int, x: Tensor, timestep: Tensor, told: Condition) -> Predicted:
    """What the model of a slot says of noisy images."""
    loop.trainee.route([slot] * len(x))
    return loop.denoiser(x, timestep, told)


@contextmanager
def averaged(loop: Loop) -> Iterator[None]:
    """What is kept of adapters in their weights' place, where it is another; they again after."""
    weights, current = loop.trainee.rows.values, None
    if loop.average is not None or loop.optimizer.part.averages:
        current = weights.clone()
        weights.copy_(torch.stack([loop.kept(slot) for slot in range(loop.slots)]))
    try:
        yield
    finally:
        if current is not None:
            weights.copy_(current)
