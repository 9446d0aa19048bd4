"""A Ray Train worker of the pretraining: makes the base, says how far it is in a small file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

from raysynth.errors import RaysynthError, StorageError
from raysynth.finetune.turn import FOLDER, TurnOver, check_turn
from raysynth.pretraining.order import Order
from raysynth.storage.files import write_atomic

TOLD_SECONDS = 1.0
"""At least, between two notes of how far the leader is."""


def told_path(folder: str) -> str:
    """Where the leader says how far it is."""
    return f"{folder}/{FOLDER}/told.json"


def pretrain_worker(given: dict[str, Any]) -> None:
    """What a Ray Train worker does; a refusal is told to the driver, and not tried again."""
    from ray.train import get_context
    from ray.train.torch import get_device

    from raysynth.models.device import pick_device
    from raysynth.models.threads import use_threads
    from raysynth.pretraining.crew import Crew, training_dtype
    from raysynth.pretraining.stages import make_base

    order: Order = given["order"]
    use_threads(order.resources.cpus_per_worker)
    device = get_device() if order.resources.gpus_per_worker else pick_device(order.base.device)
    context = get_context()
    place = (context.get_world_rank(), context.get_world_size())
    crew = Crew(device, training_dtype(order.base.dtype, device), *place)
    say = _Saying(order.folder, given["turn"], leads=crew.leads)
    try:
        make_base(order, crew, say, say.note)
    except TurnOver:
        return
    except RaysynthError as error:
        say.refused(error)


class _Saying:
    """Says how far the leader is, in a small file; a `loop.Told`."""

    def __init__(self, folder: str, turn: str, *, leads: bool) -> None:
        self._folder, self._turn, self._leads = folder, turn, leads
        self._last = -TOLD_SECONDS
        self._stage, self._began = "", 0.0
        self._lines: list[str] = []

    def __call__(self, stage: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        if not self._leads:
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, now
        if total and done == total:
            self._lines.append(self._line(stage, done, losses, self._began))
        elif now - self._last < TOLD_SECONDS:
            return
        self._last = now
        self._write({"stage": stage, "done": done, "total": total, "losses": dict(losses)})

    def _line(self, stage: str, done: int, losses: Mapping[str, float], began: float) -> str:
        shown = "".join(f"  {name} {value:.4g}" for name, value in losses.items())
        return f"{stage:<12} {done:>8,}{shown}  in {time.monotonic() - began:,.0f} s"

    def note(self, said: str) -> None:
        """Something in words, before the next stage's line."""
        if self._leads:
            self._lines.append(said)

    def refused(self, error: RaysynthError) -> None:
        """A refusal, for the driver to raise."""
        if self._leads:
            self._write({"refused": [type(error).__name__, str(error)]})

    def _write(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(StorageError):  # a notice: the training goes on without it
            check_turn(self._folder, self._turn)
            text = json.dumps({**said, "lines": self._lines})
            write_atomic(told_path(self._folder), text.encode(), patience=0)
