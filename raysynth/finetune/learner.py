"""One adapter in training: how it enters a slot, goes on from its checkpoint, and leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from raysynth.adapters.record import write_adapter
from raysynth.adapters.rows import Rows
from raysynth.errors import DamagedError
from raysynth.finetune.checkpoints import (
    Checkpoint,
    check_checkpoint,
    drop_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from raysynth.finetune.engines import Trainee
from raysynth.finetune.jobs import Job, record_of
from raysynth.finetune.material import Material
from raysynth.finetune.optimizer import Steps
from raysynth.finetune.packs import Pack
from raysynth.finetune.settings import FinetuneConfig
from raysynth.finetune.sized import Sized
from raysynth.storage.files import write_atomic

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass
class Learner:
    """The state of one adapter's training; its weights are row `slot` of the trainee."""

    job: Job
    slot: int
    sized: Sized
    """What it is trained on."""
    held_out: tuple[Material, ...]
    """What early stopping measures on, a batch for each size of images; none when it is off."""
    done: int = 0
    """Optimizer steps taken."""
    losses: list[float] = field(default_factory=list)
    terms: list[list[float]] = field(default_factory=list)
    """What each term of the loss came to, by step; empty where there are none."""
    best_loss: float = math.inf
    """Least held-out loss so far."""
    best_step: int = 0
    best: Tensor | None = None
    """[n] weights of the least held-out loss."""

    @property
    def material(self) -> Material:
        """What most of its steps are of."""
        return self.sized.usual

    def due(self, settings: FinetuneConfig) -> bool:
        """Whether it is to be evaluated: every `finetune.evaluate_steps` steps and at its end."""
        return self.done % settings.evaluate_steps == 0 or self.done >= self.job.steps

    def stale(self, settings: FinetuneConfig) -> bool:
        """Whether `finetune.patience` evaluations brought nothing better."""
        waited = (self.done - self.best_step) // settings.evaluate_steps
        return bool(self.held_out) and settings.patience <= waited

    def until_event(self, settings: FinetuneConfig) -> int:
        """Steps until it ends, is saved, is looked at or is evaluated."""
        steps = [self.job.steps - self.done, _to_next(self.done, settings.checkpoint_steps)]
        if settings.preview_steps:
            steps.append(_to_next(self.done, settings.preview_steps))
        if self.held_out:
            steps.append(_to_next(self.done, settings.evaluate_steps))
        return min(steps)


def learning_rate_factor(done: int, steps: int, falls: bool = True) -> float:
    """Linear warm-up over the first tenth, then a half cosine to zero, where it `falls`."""
    warm = max(1, round(steps * WARM_UP))
    if done < warm:
        return (done + 1) / warm
    if not falls:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, steps - warm)))


def ema_decay(done: int, decay: float) -> float:
    """Decay of the weights' moving average; shorter at first, so that the start is forgotten."""
    return min(decay, (1 + done) / (10 + done))


def resume(
    learner: Learner,
    folder: str,
    rows: Rows,
    average: Tensor | None,
    optimizer: Steps,
) -> str:
    """Take a slot's optimizer state to the learner's last checkpoint, or to its beginning.

    A checkpoint that cannot be gone on with is removed; returns why, "" where nothing is wrong.
    """
    slot, device = learner.slot, rows.values.device
    rows.parameters[slot].grad = rows.gradients[slot]
    optimizer.clear(slot)
    checkpoint, why = None, ""
    try:
        checkpoint = read_checkpoint(folder)
        if checkpoint is not None:
            sizes = rows.values.shape[1], average is not None
            check_checkpoint(checkpoint, folder, *sizes, optimizer.part.states)
    except DamagedError as error:
        drop_checkpoint(folder)
        checkpoint, why = None, f"{error}; {learner.job.name} is trained from its beginning"
    if checkpoint is not None:
        rows.values[slot] = checkpoint.weights.to(device)
        optimizer.restore(slot, checkpoint.optimizer)
        learner.done = checkpoint.step
        learner.losses = checkpoint.losses.tolist()
        learner.terms = checkpoint.terms.tolist()
        learner.best_loss, learner.best_step = checkpoint.best_loss, checkpoint.best_step
        learner.best = checkpoint.best.to(device) if len(checkpoint.best) else None
    if average is not None:
        average[slot] = rows.values[slot] if checkpoint is None else checkpoint.average.to(device)
    return why


def save_checkpoint(
    learner: Learner,
    folder: str,
    rows: Rows,
    average: Tensor | None,
    optimizer: Steps,
) -> None:
    """Write all that `resume` needs."""
    state = optimizer.state(learner.slot)
    if not state:  # no step was taken yet, all were skipped: the beginning is the checkpoint
        return
    checkpoint = Checkpoint(
        step=learner.done,
        weights=rows.values[learner.slot],
        optimizer=state,
        average=torch.empty(0) if average is None else average[learner.slot],
        losses=torch.tensor(learner.losses),
        terms=torch.tensor(learner.terms),
        best=torch.empty(0) if learner.best is None else learner.best,
        best_loss=learner.best_loss,
        best_step=learner.best_step,
    )
    write_checkpoint(checkpoint, folder)


def finish(learner: Learner, folder: str, pack: Pack, trainee: Trainee, kept: Tensor) -> None:
    """Save an adapter's best weights, or those that are `kept`, its curve and, last, its record."""
    with torch.no_grad():
        trainee.rows.values[learner.slot] = kept if learner.best is None else learner.best
    trainee.save(learner.slot, folder)
    curve = learner.losses
    write_atomic(f"{folder}/losses.json", json.dumps([round(v, 6) for v in curve]).encode())
    record = record_of(learner.job, pack.training, pack.groups, learner.done, at_the_end(curve))
    if learner.terms:
        record = replace(record, terms=_write_terms(learner, folder, pack))
    if told := learner.material.noted.get(pack.settings.objective.name):
        write_atomic(f"{folder}/objective.json", json.dumps(told).encode())
    write_adapter(record, folder)
    drop_checkpoint(folder)


def at_the_end(curve: Sequence[float]) -> float:
    """The mean over the last tenth."""
    tail = curve[-max(1, len(curve) // 10) :]
    return sum(tail) / len(tail)


def _write_terms(learner: Learner, folder: str, pack: Pack) -> dict[str, float]:
    """Write `terms.json`, each term's part of every loss and what it noted; their ends."""
    names = [one.name for one in pack.settings.terms]
    curves = dict(zip(names, map(list, zip(*learner.terms, strict=True)), strict=True))
    told = {
        name: {"curve": [round(v, 6) for v in curve], **learner.material.noted.get(name, {})}
        for name, curve in curves.items()
    }
    write_atomic(f"{folder}/terms.json", json.dumps(told).encode())
    return {name: at_the_end(curve) for name, curve in curves.items()}


def _to_next(done: int, every: int) -> int:
    return every - done % every
