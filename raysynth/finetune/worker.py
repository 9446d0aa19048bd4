"""A Ray Train worker of the fine-tuning: trains its pack, says how far it is in a small file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import StorageError
from raysynth.finetune.jobs import Job
from raysynth.finetune.packs import Pack
from raysynth.finetune.settings import FinetuneConfig
from raysynth.finetune.turn import FOLDER, TurnOver, check_turn
from raysynth.generators.recipe import Training
from raysynth.groups.groups import Groups
from raysynth.json_lines import CONTEXT
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import make_folder, read_now, write_atomic

REPORT_SECONDS = 10.0
"""At least, between two reports to Ray."""


def train_worker(given: dict[str, Any]) -> None:
    """What a Ray Train worker does: train its pack and say how far it is in a small file.

    It ends where its turn is over. Ray is told the losses by a worker that is alone in its run: a
    report waits for all workers of a run, and packs end at different times.
    """
    from ray.train import get_context

    from raysynth.finetune.training import train_pack
    from raysynth.models.threads import use_threads

    use_threads(given["cpus"])
    CONTEXT["run"] = given["run"]  # a metric says whose it is
    name, jobs = list(given["packs"].items())[get_context().get_world_rank()]
    pack = Pack(
        jobs=[Job(**job) for job in jobs],
        training=Training.from_dict(given["training"]),
        settings=FinetuneConfig.model_validate(given["finetune"]),
        base=BaseConfigSection.model_validate(given["base"]),
        resources=ResourcesConfig.model_validate(given["resources"]),
        seed=given["seed"],
        groups=Groups.from_dict(given["groups"]),
        real=given["real"],
        work=given["work"],
    )
    make_folder(said_path(pack.work, name).rsplit("/", 1)[0])
    with contextlib.suppress(TurnOver):
        train_pack(pack, _Saying(pack, name, given["turn"]))


class _Saying:
    """Says how far a pack is: a `packs.Report`."""

    def __init__(self, pack: Pack, name: str, turn: str) -> None:
        """`name`: the pack's; `turn`: of the run that trains."""
        self._work, self._name, self._turn = pack.work, name, turn
        self._attempt, self._steps = _before(pack.work, name, pack.jobs)
        self._losses: dict[str, tuple[int, float]] = {}
        self._previews: dict[str, int] = {}
        self._told = -REPORT_SECONDS

    def __call__(
        self,
        done: dict[str, int],
        failed: dict[str, str],
        fit: str = "",
        losses: Mapping[str, float] = MappingProxyType({}),
        previews: Sequence[str] = (),
        doing: str = "",
    ) -> None:
        self._previews |= {name: done[name] for name in previews}
        self._losses |= {name: (done[name], loss) for name, loss in losses.items()}
        if losses:
            self._tell_ray(losses)
        with contextlib.suppress(StorageError):  # a notice: the training goes on without it
            check_turn(self._work, self._turn)
            self._steps.update(done)
            said = {"steps": self._steps, "failed": failed, "fit": fit, "attempt": self._attempt}
            shown = {"losses": self._losses, "previews": self._previews, "doing": doing}
            text = json.dumps({**said, **shown})
            write_atomic(said_path(self._work, self._name), text.encode(), patience=0)

    def _tell_ray(self, losses: Mapping[str, float]) -> None:
        """The losses, for Ray Train's own view; a report waits for Ray, so they are few."""
        from ray.train import get_context, report

        now = time.monotonic()
        if get_context().get_world_size() == 1 and now - self._told >= REPORT_SECONDS:
            self._told = now
            told = {f"loss/{name}": loss for name, loss in losses.items()}
            report({"loss": sum(losses.values()) / len(losses), **told})


def _before(work: str, name: str, jobs: list[Job]) -> tuple[int, dict[str, int]]:
    """The number of a pack's attempt in this run of the stage; adapters that it finds complete."""
    said = said_by(work, name)
    complete = {job.name: job.steps for job in jobs}
    steps = {job: step for job, step in said["steps"].items() if step == complete.get(job)}
    return said.get("attempt", 0) + 1, steps


def said_path(work: str, name: str) -> str:
    """Where a pack's worker says how far it is."""
    return f"{work}/{FOLDER}/progress/{name}.json"


def said_by(work: str, name: str) -> dict[str, Any]:
    """Steps per adapter, failures and fit that a worker has reported so far."""
    said = read_now(said_path(work, name))
    return said if isinstance(said, dict) else {"steps": {}, "failed": {}, "fit": ""}
