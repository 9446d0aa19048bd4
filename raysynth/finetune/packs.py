"""Packs: what each worker trains, dealt in packs of even work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from raysynth.cluster.settings import ResourcesConfig
from raysynth.finetune.jobs import Job
from raysynth.finetune.objective import Objective
from raysynth.finetune.settings import OBJECTIVES, FinetuneConfig
from raysynth.finetune.term import terms_of
from raysynth.generators.recipe import Training
from raysynth.groups.groups import Groups
from raysynth.models.settings import BaseConfigSection


@dataclass(frozen=True)
class Pack:
    """What one worker trains: jobs that share a frozen base, and the run they belong to."""

    jobs: list[Job]
    training: Training
    settings: FinetuneConfig
    base: BaseConfigSection
    resources: ResourcesConfig
    groups: Groups
    seed: int
    real: str
    """Folder of the real table."""
    work: str
    """The stage's folder or URI."""
    objective: Objective | None = None
    """What the loss is instead of `finetune.objective`, of trainings that are no generator's."""
    parents: str = ""
    """Folder or URI of the models that jobs go on from; "": those in `work`."""

    @property
    def origin(self) -> str:
        """Folder or URI of the models that jobs go on from."""
        return self.parents or self.work

    def folder(self, job: Job) -> str:
        """Folder or URI of a job's adapter and checkpoints."""
        return f"{self.work}/{job.name}"


class Report(Protocol):
    """Is told the steps done per adapter, who failed and why, and, as `fit`, how many train at
    once and which checkpoints could not be gone on with; now and then the adapters' losses, each
    the mean of its last steps, and whose previews were drawn; what keeps the steps waiting, while
    something does."""

    def __call__(  # noqa: D102
        self,
        done: dict[str, int],
        failed: dict[str, str],
        fit: str = "",
        losses: Mapping[str, float] = MappingProxyType({}),
        previews: Sequence[str] = (),
        doing: str = "",
    ) -> None: ...


def unheard(*said: object, **more: object) -> None:
    """A `Report` to nobody."""


def passes_of(training: Training, settings: FinetuneConfig) -> int:
    """Rows that the network sees for one image of a micro-batch, to be trained.

    The objective's and its terms', and, with DreamBooth's prior preservation, as many of a prior
    image.
    """
    objective, knobs = OBJECTIVES[settings.objective.name], settings.objective.knobs(OBJECTIVES)
    passes: int = objective.passes(knobs)
    passes += sum(added.passes.trained for added in terms_of(settings))
    return passes * (2 if training.budget.prior_weight else 1)


def looks_of(training: Training, settings: FinetuneConfig) -> int:
    """Rows that the network sees besides, forwards alone: its terms'."""
    looked = sum(added.passes.looked for added in terms_of(settings))
    return looked * (2 if training.budget.prior_weight else 1)


def split_into_packs(jobs: Sequence[Job], per_worker: int | str, workers: int) -> list[list[Job]]:
    """Deal the jobs to packs of about the same work, each trained by one worker.

    `per_worker`: adapters per pack, or "auto": as many packs as workers. The longest jobs are dealt
    first, always to the pack that has least (Graham 1969, LPT), and lead their packs.
    """
    if not jobs:
        return []
    size = len(jobs) if per_worker == "auto" else int(per_worker)
    count = min(workers, len(jobs)) if per_worker == "auto" else -(-len(jobs) // size)
    packs: list[list[Job]] = [[] for _ in range(count)]
    for job in sorted(jobs, key=lambda job: -job.work):
        open_packs = [pack for pack in packs if len(pack) < size]
        min(open_packs, key=lambda pack: sum(j.work for j in pack)).append(job)
    return packs
