"""Making a base from outside: refusals before Ray, workers of Ray Train, what they say."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from raysynth import errors
from raysynth.cluster.asked import Asked
from raysynth.cluster.capacity import check_before_ray, is_local
from raysynth.cluster.session import Session
from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import StageError, StorageError
from raysynth.finetune.turn import FOLDER, take_turn
from raysynth.pretraining.material import list_material
from raysynth.pretraining.order import BARS, Bar, Order, stages_of
from raysynth.pretraining.worker import pretrain_worker, told_path
from raysynth.progress import Progress
from raysynth.storage.files import exists, read_json, read_now, remove

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 4 * 3600
"""That workers wait for the leader, who exports and measures alone."""


@dataclass(frozen=True)
class _Demand:
    """What is asked of the cluster: the workers alone."""

    resources: ResourcesConfig

    @property
    def asked(self) -> tuple[Asked, ...]:
        return (self.resources.asked,)


def run_pretraining(
    order: Order,
    display: Progress,
    watched: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> list[str]:
    """Make a base, or go on with it; its bars as lines.

    `watched`: a context around the work, once the folder is this driver's.

    Raises
    ------
    ConfigError, DataError, ModelError
        What can be refused before Ray starts.
    StageError
        Workers failed more often than allowed, or a training came to nothing.
    """
    if (known := _bars(order)) is not None:
        return known
    list_material(order.dataset, order.prompts, order.settings, order.seed).check_heads()
    demand = check_machine(order)
    with display, Session(demand, order.folder) as session:
        session.hold(display)
        with watched():
            display.stages = stages_of(order.settings)
            display.stage(display.stages[0])
            display.update("starting Ray")
            session.start()
            _train(order, display)
            session.check()
    found = _bars(order)
    if found is None:
        raise StageError("pretrain: the workers ended without a base. Fix: run the same command")
    return found


def check_machine(order: Order) -> _Demand:
    """What workers are asked for, refused where it is not there; ConfigError."""
    demand = _Demand(order.resources)
    check_before_ray(demand)
    return demand


def _bars(order: Order) -> list[str] | None:
    """The bars of a base that is finished; None: it is not, or its settings are others."""
    told = read_json(f"{order.folder}/{BARS}")
    known = isinstance(told, dict) and told.get("key") == order.keys["bars"]
    if not known or not exists(f"{order.exported}/model_index.json"):
        return None
    return [str(Bar(**bar)) for bar in told["bars"]]


def _train(order: Order, display: Progress) -> None:
    """One Ray Train run of all workers, followed until it ends."""
    turn = uuid.uuid4().hex
    take_turn(order.folder, turn)
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(_fit, order, turn)
        said = _follow(future, order, display)
        if refused := said.get("refused"):
            kind, message = refused
            raise getattr(errors, kind, StageError)(message)
        if error := future.exception():
            raise StageError(
                f"pretrain: workers failed: {errors.reason_of(error)}. What is trained is kept. "
                "Fix: what the reason says, then run the same command"
            ) from error
    finally:
        # Ctrl-C does not wait for the workers, which end when they see that their turn is over.
        remove(f"{order.folder}/{FOLDER}")
        pool.shutdown(wait=False, cancel_futures=True)


def _follow(future: Future[None], order: Order, display: Progress) -> dict[str, Any]:
    """Show what the leader says until the run has ended; its last word."""
    told: dict[str, Any] = {}
    shown = 0
    while True:
        ended = future.done()
        with contextlib.suppress(StorageError):  # a notice: the training goes on without it
            told = read_now(told_path(order.folder)) or told
        for line in told.get("lines", [])[shown:]:
            display.say(f"  {line}")
            shown += 1
        if "stage" in told:
            _show(told["stage"], display)
            what = "images" if told["stage"] == "latents" else "steps" if told["total"] else ""
            display.update(what, told["done"], told["total"])
            losses = "  ".join(f"{name} {value:.4g}" for name, value in told["losses"].items())
            if losses:
                display.detail("losses", losses)
        else:
            display.update("starting workers")
        if ended:
            return told
        time.sleep(POLL_SECONDS)


def _show(stage: str, display: Progress) -> None:
    """That a stage is at work, and those before it are there."""
    before = display.stages[: list(display.stages).index(stage)]
    if list(display.made) != list(before):
        display.made = before
        display.stage(stage)


def _fit(order: Order, turn: str) -> None:
    """The Ray Train run; resuming is by the stages' checkpoints, not by Ray's."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from raysynth.pretraining.trainer import trainer_of

    resources = order.resources
    gpus = resources.gpus_per_worker
    trainer = trainer_of(local=is_local(resources))(
        pretrain_worker,
        train_loop_config={"order": order, "turn": turn},
        torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=gpus > 0,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": gpus} if gpus else {}),
            },
        ),
        run_config=RunConfig(
            name=f"pretrain-{uuid.uuid4().hex[:8]}",
            storage_path=f"{order.folder}/{FOLDER}",
            failure_config=FailureConfig(max_failures=order.settings.max_failures),
        ),
    )
    trainer.fit()
