"""The training loop of every pretraining stage: seeded per step, checkpointed, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysynth.pretraining.loop import Stateful, dice_of, stepped

SAVE_EVERY_S = 90.0
_LOG_EVERY_S = 20.0


@dataclass(frozen=True)
class Plan:
    """One stage: its name, number of optimizer steps, folder of checkpoints and seed."""

    name: str
    steps: int
    work: Path
    seed: int

    @property
    def checkpoint(self) -> Path:
        """Where this stage's state is kept."""
        return self.work / f"{self.name}.pt"

    def dice(self, step: int) -> torch.Generator:
        """The random numbers of one step; the same after a resume."""
        return dice_of(self.name, self.seed, step)


def train(
    plan: Plan,
    parts: Mapping[str, Stateful],
    step: Callable[[torch.Generator], Mapping[str, float]],
    on_save: Callable[[int], None] | None = None,
) -> None:
    """Call `step` until the plan is fulfilled, going on from the last checkpoint.

    Raises
    ------
    FloatingPointError
        A step reported a value that is not finite.
    """
    done = restore(plan, parts)
    saved = logged = time.monotonic()
    began, spent = done, time.process_time()
    for number in range(done, plan.steps):
        report = step(plan.dice(number))
        now, last = time.monotonic(), number + 1 == plan.steps
        if now - logged > _LOG_EVERY_S or last:
            _refuse_non_finite(plan, number, report)
            cpu = (time.process_time() - spent) / (number + 1 - began)
            shown = "  ".join(f"{key} {value:.4f}" for key, value in report.items())
            print(
                f"{plan.name} {number + 1}/{plan.steps}  {shown}  {cpu:.3f} cpu-s/step", flush=True
            )
            logged = now
        if now - saved > SAVE_EVERY_S or last:
            save(plan, parts, number + 1)
            saved = now
            if on_save:
                on_save(number + 1)


def save(plan: Plan, parts: Mapping[str, Stateful], done: int) -> None:
    """Write the checkpoint whole or not at all."""
    plan.work.mkdir(parents=True, exist_ok=True)
    part = plan.checkpoint.with_suffix(".part")
    torch.save({"done": done, **{name: p.state_dict() for name, p in parts.items()}}, part)
    part.replace(plan.checkpoint)


def restore(plan: Plan, parts: Mapping[str, Stateful]) -> int:
    """Load the last checkpoint into `parts`; the number of steps it had done, 0 without one."""
    if not plan.checkpoint.exists():
        return 0
    state = torch.load(plan.checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["done"])


def descend(
    loss: torch.Tensor, module: nn.Module, *drivers: torch.optim.Optimizer | Any
) -> torch.Tensor:
    """Backward, clip the gradient to norm 1, step optimizers and schedules; the norm before."""
    loss.backward()
    return stepped(module, *drivers)


def _refuse_non_finite(plan: Plan, number: int, report: Mapping[str, float]) -> None:
    for key, value in report.items():
        if value != value or abs(value) == float("inf"):
            raise FloatingPointError(
                f"{plan.name}: {key} is {value} at step {number}, expected a finite number. Delete "
                f"{plan.checkpoint} to begin again, or lower the learning rate."
            )
