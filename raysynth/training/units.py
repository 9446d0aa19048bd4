"""Trainings as units of work: each a Ray task, a JSON record and its best weights, written whole.

A unit that has its record is not trained again, so a killed run goes on with the next one. One
whose record or weights are cut or not its own is named and trained again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import safetensors.torch
from torch import Tensor

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.errors import DamagedError, StageError, first_line, reason_of
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics
from raysynth.heads.seen import Features
from raysynth.knobs import digest_of
from raysynth.models.headers import is_whole
from raysynth.models.threads import use_threads
from raysynth.networks.build import Blueprint
from raysynth.networks.images import Data
from raysynth.networks.linear import Head
from raysynth.networks.network import Network, build_network
from raysynth.progress import Progress
from raysynth.storage.files import open_storage, write_atomic
from raysynth.terminal import masked
from raysynth.training.fit import Snapshot, fit
from raysynth.training.plan import Plan

MAX_RETRIES = 2
Records = dict[Plan, dict[str, Any]]
Count = Callable[[Records], tuple[int, int]]
"""(done, total) of the records so far."""


@dataclass(frozen=True)
class Units:
    """The trainings of a stage: their folder, what networks are made from, what a worker takes.

    `groups`, `size`: those of the images, and their side in pixels.
    """

    folder: str
    blueprint: Blueprint
    resources: ResourcesConfig
    groups: Groups
    size: int


def unit_name(plan: Plan) -> str:
    """File name of a plan's unit: a digest of all that decides it."""
    return digest_of(plan.to_dict())


def train_unit(
    plan: Plan, data: Data, blueprint: Blueprint, folder: str, frozen: Features | None = None
) -> dict[str, Any]:
    """Train a plan and keep, for each of its heads, the snapshot of the best validation score.

    `frozen`: see `fit`.

    Returns
    -------
    The record: `plan`, `seconds`, `history` ([{step, heads: {name: metrics}}]) and `best`
    ({name: {step, validation, tuned}}). The weights lie beside it, as `<unit>.safetensors`.
    """
    start = time.perf_counter()
    history: list[dict[str, Any]] = []
    best: dict[str, tuple[float, int, dict[str, Any]]] = {}
    tensors: dict[str, Tensor] = {}
    for snapshot in fit(plan, data, blueprint, frozen):
        metrics = snapshot.validation
        better = [h for h, m in metrics.items() if h not in best or m.score > best[h][0]]
        best.update({h: _entry(snapshot, h) for h in better})
        _keep(tensors, snapshot, better, {step for _, step, _ in best.values()})
        heads = {h: m.to_dict(data.groups) for h, m in metrics.items()}
        history.append({"step": snapshot.step, "heads": heads})
    at = {entry["step"]: entry["heads"] for entry in history}
    record = {
        "plan": plan.to_dict(),
        "seconds": round(time.perf_counter() - start, 2),
        "history": history,
        "best": {
            h: {"step": step, "validation": at[step][h], "tuned": tuned}
            for h, (_, step, tuned) in best.items()
        },
    }
    name = f"{folder}/{unit_name(plan)}"
    write_atomic(f"{name}.safetensors", safetensors.torch.save(tensors))
    write_atomic(f"{name}.json", json.dumps(record).encode())
    return record


def _entry(snapshot: Snapshot, head: str) -> tuple[float, int, dict[str, Any]]:
    return snapshot.validation[head].score, snapshot.step, snapshot.fitted[head].chosen


def _keep(
    tensors: dict[str, Tensor], snapshot: Snapshot, better: list[str], steps: set[int]
) -> None:
    """Hold the weights of the steps that are some head's best, and those heads; drop the rest."""
    for key in [
        k for k in tensors if k.split("/")[0].isdigit() and int(k.split("/")[0]) not in steps
    ]:
        del tensors[key]
    if better:
        tensors.update({f"{snapshot.step}/{key}": v for key, v in snapshot.network.state().items()})
    for name in better:
        head = snapshot.fitted[name].head
        if head is not None:
            tensors[f"head/{name}/weight"] = head.weight.cpu().contiguous()
            tensors[f"head/{name}/bias"] = head.bias.cpu().contiguous()


def load_unit(units: Units, record: dict[str, Any], head: str) -> Network:
    """The network of a unit at the best step of one of its heads, with that head in place.

    Raises DamagedError where its weights cannot be read, are not all there, or are no numbers.
    """
    file = f"{units.folder}/{digest_of(record['plan'])}.safetensors"
    storage, path = open_storage(file)
    prefix = f"{record['best'][head]['step']}/"
    blueprint = units.blueprint
    network = build_network(blueprint, units.groups, units.size, blueprint.seed)
    expected = {f"{prefix}{name}" for name in network.model.state_dict()}
    try:
        tensors = safetensors.torch.load(storage.cat_file(path))
        if missing := sorted(expected - tensors.keys()):
            raise ValueError(f"without {missing[0]}")
        if broken := sorted(name for name, value in tensors.items() if not value.isfinite().all()):
            raise ValueError(f"{broken[0]} is not finite")
    except (FileNotFoundError, ValueError, safetensors.SafetensorError) as error:
        raise DamagedError(
            f"{masked(file)}: cannot be read ({first_line(error)}); expected a training's weights. "
            "Fix: delete it, and run again: it is trained again",
            file,
        ) from None
    network.load_state({name.removeprefix(prefix): tensors[name] for name in expected})
    if f"head/{head}/weight" in tensors:
        found = (tensors[f"head/{head}/{part}"].to(network.device) for part in ("weight", "bias"))
        network.set_head(Head(*found))
    return network


def read_record(
    folder: str, plan: Plan, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any] | None:
    """The record of a unit that is done, or None; `say` is told of files that are not whole."""
    storage, path = open_storage(f"{folder}/{unit_name(plan)}")
    if not storage.exists(f"{path}.json"):
        return None
    record = _parsed(storage.cat_file(f"{path}.json"), plan)
    if record is None:
        say(f"{path}.json is cut or no record of its training, which is done again")
    elif not is_whole(storage, f"{path}.safetensors"):
        say(f"{path}.safetensors is missing or cut; its training is done again")
        record = None
    return record


def _parsed(data: bytes, plan: Plan) -> dict[str, Any] | None:
    """A record of this plan, with every head's best; else None."""
    try:
        record = json.loads(data)
        own = digest_of(record["plan"]) == unit_name(plan)
        heads = all(
            isinstance(best["step"], int)
            and isinstance(best["tuned"], dict)
            and math.isfinite(GroupMetrics.from_dict(best["validation"]).score)
            for best in (record["best"][spec.name] for spec in plan.heads)
        )
        complete = own and heads and math.isfinite(record["seconds"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if complete else None


def start_workers(resources: ResourcesConfig) -> list[Any]:
    """Have the workers' processes import torch; references that are ready when they have."""
    task = on_worker(use_threads, resources)
    return [task.remote(resources.cpus_per_worker) for _ in range(resources.workers)]


def run_units(
    units: Units,
    plans: Sequence[Plan],
    data: Any,
    progress: Progress,
    what: str,
    then: Callable[[Records], Sequence[Plan]] = lambda records: (),
    frozen: Any = None,
    reached: Count | None = None,
) -> Records:
    """Train the plans that have no record yet, `resources.workers` at once; every plan's record.

    Parameters
    ----------
    data, frozen : references to a `Data`, and to the `Features` that plans of no steps share.
    then : plans that follow from the records so far; asked after every training, so that no worker
        waits for the slowest one.
    reached : what is shown; None: trainings that are known.

    Raises StageError naming every training that failed, after the others are done.
    """
    task = on_worker(_train_in_worker, units.resources, max_retries=MAX_RETRIES)
    queue = _Queue(units.folder, lambda text: progress.say(f"  {text}"), reached)
    queue.admit(plans)
    queue.admit(then(queue.records))
    running: dict[Any, Plan] = {}
    while queue.waiting or running:
        for plan in queue.first(units.resources.workers - len(running)):
            running[task.remote(units, plan, data, frozen)] = plan
        progress.update(what, *queue.reached)
        finished, _ = ray.wait(list(running), num_returns=1, timeout=2.0)
        for reference in finished:
            queue.take(running.pop(reference), reference)
        if finished:
            queue.admit(then(queue.records))
    if queue.failed:
        raise StageError(_explained(what, queue.failed, len(queue.known)))
    progress.update(what, *queue.reached)
    return queue.records


class _Queue:
    """Plans that wait, the records of those trained now or earlier, why others failed."""

    def __init__(self, folder: str, say: Callable[[str], None], count: Count | None) -> None:
        self.folder, self.say, self._count = folder, say, count
        self.records: Records = {}
        self.failed: dict[str, str] = {}
        self.waiting: list[Plan] = []
        self.known: set[Plan] = set()

    @property
    def reached(self) -> tuple[int, int]:
        """Trainings that are done, or have failed, and those that are known; or as is counted."""
        if self._count:
            return self._count(self.records)
        return len(self.records) + len(self.failed), len(self.known)

    def admit(self, plans: Sequence[Plan]) -> None:
        """Queue the plans that are new and have no record yet."""
        for plan in plans:
            if plan in self.known:
                continue
            self.known.add(plan)
            record = read_record(self.folder, plan, self.say)
            if record is None:
                self.waiting.append(plan)
            else:
                self.records[plan] = record

    def first(self, count: int) -> list[Plan]:
        """Up to `count` plans that wait, which wait no longer."""
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def take(self, plan: Plan, reference: Any) -> None:
        """The record of a training that ended, or why it failed."""
        try:
            self.records[plan] = ray.get(reference)
        except ray.exceptions.RayError as error:
            self.failed[unit_name(plan)] = reason_of(error)


def _explained(what: str, failed: dict[str, str], total: int) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
    return (
        f"{what}: {len(failed)} of {total} trainings failed ({reasons}). What "
        "succeeded is kept: fix the cause and run again"
    )


def _train_in_worker(
    units: Units, plan: Plan, data: Data, frozen: Features | None
) -> dict[str, Any]:
    use_threads(units.resources.cpus_per_worker)
    return train_unit(plan, data, units.blueprint, units.folder, frozen)
