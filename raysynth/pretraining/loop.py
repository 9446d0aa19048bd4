"""The loop of every stage: seeded per step, checkpointed, resumable, by one worker or several."""

from __future__ import annotations

import io
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from raysynth.errors import StageError
from raysynth.pretraining.crew import Crew
from raysynth.storage.files import exists, make_folder, open_storage, write_atomic

SAVE_SECONDS = 90.0
LOOK_EVERY = 20
"""Steps between two looks at the losses where each waits for a GPU; on a CPU every step is one."""
Numbers = Mapping[str, torch.Tensor]
Told = Callable[[str, int, int, Mapping[str, float]], None]
"""Is told a stage's name, steps done, steps in all, and its losses."""


class Stateful(Protocol):
    """A module, optimizer or schedule: anything whose state a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """The state, tensors and plain numbers only."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state over."""


def dice_of(stage: str, seed: int, step: int) -> torch.Generator:
    """The random numbers of one step of a stage."""
    number = zlib.crc32(stage.encode())
    return torch.Generator().manual_seed((number << 24) + seed * 1_000_003 + step)


@dataclass(frozen=True)
class Plan:
    """One stage: its name, optimizer steps, checkpoint, seed, and who takes part."""

    name: str
    steps: int
    file: str
    """Path or URI of its checkpoint, named after all that decides what is in it."""
    seed: int
    crew: Crew
    told: Told
    preview_steps: int

    def dice(self, step: int) -> torch.Generator:
        """The random numbers of one step; the same after a resume, and in every worker."""
        return dice_of(self.name, self.seed, step)


def train(
    plan: Plan,
    parts: Mapping[str, Stateful],
    step: Callable[[torch.Generator], Numbers],
    preview: Callable[[int], None] = lambda done: None,
) -> None:
    """Call `step` until the plan is fulfilled, going on from the last checkpoint.

    `step` gives its loss and `norm`, the gradient's, the same for all workers.

    The leader writes checkpoints, and calls `preview` every `preview_steps`. With the losses goes
    `seconds`, of a step since the first of this start.

    Raises
    ------
    StageError
        A gradient is not finite.
    """
    done = restore(plan, parts)
    plan.crew.wait()  # a checkpoint that one reads, another would write over
    every = 1 if plan.crew.device.type == "cpu" else LOOK_EVERY
    saved, pace = time.monotonic(), _Pace(plan.crew.device)
    for number in range(done, plan.steps):
        found = step(plan.dice(number))
        count = number + 1
        last = count == plan.steps
        if not count % every or last or number == done:
            losses = {name: float(value) for name, value in found.items()}
            _refuse_non_finite(plan, number, losses)
            losses["seconds"] = pace.at(count)
            plan.told(plan.name, count, plan.steps, losses)
        due = plan.crew.leads and (time.monotonic() - saved > SAVE_SECONDS or last)
        if due and math.isfinite(found["norm"]):
            save(plan, parts, count)
            saved = time.monotonic()
        if plan.crew.leads and not count % plan.preview_steps:
            preview(count)


class _Pace:
    """Seconds of a step, but for the first of a start, which prepares.

    A CPU's own seconds, which other processes cannot stretch; previews and checkpoints count.
    """

    def __init__(self, device: torch.device) -> None:
        self._first, self._began = 0, 0.0
        self._clock = time.process_time if device.type == "cpu" else time.monotonic

    def at(self, done: int) -> float:
        """After so many steps; 0 after the first."""
        now = self._clock()
        if not self._first:
            self._first, self._began = done, now
        return (now - self._began) / max(1, done - self._first)


def save(plan: Plan, parts: Mapping[str, Stateful], done: int) -> None:
    """Write the checkpoint, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"done": done, **{name: p.state_dict() for name, p in parts.items()}}, buffer)
    make_folder(plan.file.rsplit("/", 1)[0])
    write_atomic(plan.file, buffer.getbuffer())


def restore(plan: Plan, parts: Mapping[str, Stateful]) -> int:
    """Load the last checkpoint into `parts`; the number of steps it had done, 0 without one."""
    state = load(plan.file, plan.crew.device)
    if state is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["done"])


def load(file: str, device: torch.device) -> dict[str, Any] | None:
    """What `torch.save` wrote, tensors and plain values alone; None without a file."""
    if not exists(file):
        return None
    storage, path = open_storage(file)
    found: dict[str, Any] = torch.load(
        io.BytesIO(storage.cat_file(path)), map_location=device, weights_only=True
    )
    return found


def averaging(module: nn.Module, decay: float) -> AveragedModel:
    """The moving average of a module's weights, of at most `decay`; less at first.

    After n updates min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage does
    with `num_updates`: a short training is not averaged with what it began with.
    """

    def update(averaged: Any, current: Any, count: Any) -> None:
        kept = min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return AveragedModel(module, multi_avg_fn=torch.no_grad()(update))


def warm_then_decay(steps: int, decay_share: float, warm_up: int = 100) -> Callable[[int], float]:
    """Learning-rate factor: linear warm-up, constant, linear to zero over the last share."""
    decay_steps = max(1, round(steps * decay_share))

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm_up, max(0.0, (steps - step) / decay_steps))

    return factor


def descend(crew: Crew, loss: torch.Tensor, module: nn.Module, *drivers: Any) -> torch.Tensor:
    """Backward, mean over the workers, gradient clipped to norm 1, optimizers and schedules.

    Returns the norm before clipping.
    """
    loss.backward()
    crew.mean_gradients(module)
    return stepped(module, *drivers)


def stepped(module: nn.Module, *drivers: Any) -> torch.Tensor:
    """Clip the gradient to norm 1, step optimizers and schedules; the norm before."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for driver in drivers:
        driver.step()
    module.zero_grad(set_to_none=True)
    return norm


def _refuse_non_finite(plan: Plan, number: int, losses: Mapping[str, float]) -> None:
    """By the norm of the mean gradient alone, on which all workers agree."""
    if not math.isfinite(losses["norm"]):
        section = plan.name.partition("-")[0]
        raise StageError(
            f"pretrain: {plan.name}: the gradient's norm is {losses['norm']} at step {number:,}; "
            f"expected a finite number. Fix: lower pretraining.{section}.learning_rate, or "
            "base.dtype=float32; stages before it are kept"
        )
