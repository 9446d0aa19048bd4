"""The fine-tuning stage: packs of adapters on Ray Train workers, failures named at the end.

On a cluster every pack is a Ray Train run of its own: it starts when its worker can, and a worker
that is lost takes no other with it. A local Ray trains all packs in one run, since every run brings
four processes that cost as much to start as some hundred steps of a small model.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from raysynth.adapters.record import Adapter, read_adapter, write_adapters
from raysynth.cluster.capacity import is_local
from raysynth.cluster.settings import ResourcesConfig
from raysynth.datasets.captions import read_captions
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import StageError, StorageError, reason_of
from raysynth.finetune.captions import with_captions
from raysynth.finetune.checks import check_partners
from raysynth.finetune.experts import complete
from raysynth.finetune.jobs import Job, plan_jobs
from raysynth.finetune.kept import FOLDER as ENCODED
from raysynth.finetune.kept_previews import read
from raysynth.finetune.packs import split_into_packs
from raysynth.finetune.reached import Reached
from raysynth.finetune.settings import FinetuneConfig
from raysynth.finetune.turn import take_turn, turn_path
from raysynth.finetune.worker import said_by, train_worker
from raysynth.generators.recipe import Training, recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.json_lines import CONTEXT
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import open_storage, remove
from raysynth.storage.tables import read_table
from raysynth.trackers.several import SILENT, Trackers
from raysynth.trackers.tracker import LOSS

POLL_SECONDS = 1.0
SCRATCH = (".train", ".prior", ENCODED)
"""Folders in `work` that only a stage in progress needs."""


@dataclass(frozen=True)
class _Shared:
    """What all packs of a stage are trained with; `turn` names this run of the stage."""

    config: Sections
    """The run's."""
    training: Training
    groups: Groups
    real: str
    work: str
    turn: str
    tracker: Trackers


def run_finetune(
    config: Sections,
    real: str,
    clusters: str,
    groups: Groups,
    work: str,
    progress: Progress,
    tracker: Trackers = SILENT,
) -> dict[str, Any]:
    """Train every adapter of the run that is not complete in `work`, which survives a kill.

    `real`, `clusters`: folders of the real table and of the clustering stage. Facts: rows
    (adapters); with terms, `terms` {adapter: {term: its part of the loss}}.

    Raises StageError naming every adapter that failed, after the others are done. A run without
    them would let other groups' models speak for theirs, and nothing would train them later.
    """
    recipe = recipe_of(config)
    if recipe.training is None:
        write_adapters([], work)
        return {"rows": 0}
    table = read_table(clusters, files=[_clusters_file(clusters)])
    settings = config[FinetuneConfig]
    captions = read_captions(config[DatasetConfig], real)
    jobs = plan_jobs(recipe, settings, config[PromptConfig], table, groups)
    jobs = [with_captions(job, config[PromptConfig], captions) for job in jobs]
    check_partners(settings, jobs, groups)
    return train_jobs(jobs, config, recipe.training, real, groups, work, progress, tracker)


def train_jobs(
    jobs: Sequence[Job],
    config: Sections,
    training: Training,
    real: str,
    groups: Groups,
    work: str,
    progress: Progress,
    tracker: Trackers = SILENT,
) -> dict[str, Any]:
    """Train those of some adapters that are not complete in `work`; as `run_finetune`."""
    settings, workers = config[FinetuneConfig], config[ResourcesConfig].workers
    todo = [job for job in jobs if not complete(work, job, settings)]
    packs = split_into_packs(todo, settings.adapters_per_worker, workers)
    shared = _Shared(config, training, groups, real, work, uuid.uuid4().hex, tracker)
    failed = _run_packs(packs, Reached(jobs, todo, settings, work), shared, progress)
    trained = [a for job in jobs if (a := read_adapter(f"{work}/{job.name}")) is not None]
    _note(trained, failed, progress)
    if failed:
        raise _some_failed(failed, len(jobs))
    for folder in SCRATCH:
        remove(f"{work}/{folder}")
    write_adapters(trained, work)
    return {"rows": len(trained), **_terms_of(trained)}


def _note(trained: Sequence[Adapter], failed: dict[str, str], progress: Progress) -> None:
    """A line for each adapter, in the log alone: there may be a thousand."""
    for each in trained:
        loss = round(each.loss, 4)
        progress.note(f"{each.name} is trained", adapter=each.name, steps=each.steps, loss=loss)
    for name, reason in failed.items():
        progress.note(reason, "error", adapter=name)


def _terms_of(trained: Sequence[Adapter]) -> dict[str, Any]:
    """What the terms of the loss came to, where there are any."""
    found = {adapter.name: dict(adapter.terms) for adapter in trained if adapter.terms}
    return {"terms": found} if found else {}


def _some_failed(failed: dict[str, str], count: int) -> StageError:
    reasons = "\n  ".join(f"{name}: {reason}" for name, reason in failed.items())
    return StageError(
        f"finetune: {len(failed)} of {count} adapters failed:\n  {reasons}\nWhat is "
        "trained is kept. Fix: what the reasons say, then run again"
    )


def _run_packs(
    packs: list[list[Job]], reached: Reached, shared: _Shared, progress: Progress
) -> dict[str, str]:
    """One Ray Train run per pack from threads, as many at once as workers; reasons of failures."""
    if not packs:
        return {}
    progress.update("starting workers, steps", reached.done, reached.total)
    resources, work = shared.config[ResourcesConfig], shared.work
    at_once = min(resources.workers, len(packs))
    # Workers that would stay idle lend their CPUs to those that run.
    cpus = resources.cpus_per_worker * (resources.workers // at_once)
    named = {f"pack-{number}": pack for number, pack in enumerate(packs)}
    together = is_local(resources) and len(packs) == at_once
    runs = [list(named)] if together else [[name] for name in named]
    take_turn(work, shared.turn)

    def train(names: list[str]) -> None:
        _fit({name: named[name] for name in names}, shared, cpus)

    pool = ThreadPoolExecutor(at_once)
    try:
        futures = {
            name: future for run in runs for future in [pool.submit(train, run)] for name in run
        }
        _follow(futures, named, reached, shared, progress)
        # One pack's crash ends the run of all: each gets one of its own.
        crashed = together and len(named) > 1 and futures[next(iter(named))].exception()
        again = [name for name in named if crashed and _left(named[name], shared)]
        futures |= {name: pool.submit(train, [name]) for name in again}
        _follow(futures, named, reached, shared, progress)
    finally:
        # Ctrl-C does not wait for the trainings, which end when they see that their turn is over.
        remove(turn_path(work))
        pool.shutdown(wait=False, cancel_futures=True)
    progress.update(reached.what, reached.total, reached.total)
    return _failures(named, futures, shared, progress)


def _failures(
    named: dict[str, list[Job]],
    futures: dict[str, Future[None]],
    shared: _Shared,
    progress: Progress,
) -> dict[str, str]:
    """How every pack ended; adapter -> reason of those that failed."""
    failed: dict[str, str] = {}
    for name, pack in named.items():
        last = said_by(shared.work, name)
        progress.say(f"  {name}, {len(pack)} adapters: {last['fit'] or 'not started'}")
        failed |= last["failed"] | _crashed(futures[name], pack, shared)
    return failed


def _follow(
    futures: dict[str, Future[None]],
    packs: dict[str, list[Job]],
    reached: Reached,
    shared: _Shared,
    progress: Progress,
) -> None:
    """Show how far all packs are until their runs have ended, and which have begun again."""
    attempts = dict.fromkeys(packs, 1)
    while True:
        ended = all(future.done() for future in futures.values())
        with contextlib.suppress(StorageError):  # a count: the trainings go on without it
            for name in packs:
                said = said_by(shared.work, name)
                _take_in(name, said, reached, progress, shared)
                if said.get("attempt", 1) > attempts[name]:
                    attempts[name] = said["attempt"]
                    _say_again(name, packs[name], said, shared, progress)
        what = reached.what if reached.doing else "starting workers, steps"
        progress.update(what, reached.done, reached.total)
        progress.detail("adapters", reached.adapters)
        if ended:
            return
        time.sleep(POLL_SECONDS)


def _show(folder: str, step: int, tracker: Trackers) -> None:
    """An adapter's preview, for trackers."""
    if (picture := read(folder, step)) is not None:
        tracker.pictures(f"finetune/{folder.rpartition('/')[2]}", step, {"preview": picture})


def _take_in(
    pack: str, said: dict[str, Any], reached: Reached, progress: Progress, shared: _Shared
) -> None:
    """What a pack's worker says; a failure is told at once, for the others go on for long."""
    reached.take_in(said["steps"])
    if "doing" in said:
        reached.doing[pack] = said["doing"]
    for name, (step, loss) in said.get("losses", {}).items():
        if reached.losses.get(name) != (step, loss):
            reached.losses[name] = (step, loss)
            shared.tracker.metrics(f"finetune/{name}", step, {LOSS: loss})
    for name, step in said.get("previews", {}).items():
        if reached.previews.get(name) != step:
            reached.previews[name] = step
            _show(f"{shared.work}/{name}", step, shared.tracker)
    for name in said["failed"].keys() - reached.failed:
        reached.failed.add(name)
        reason = said["failed"][name].partition(" Fix: ")[0]
        progress.say(f"  adapter {name} failed: {reason}", level="warning", adapter=name)


def _say_again(
    name: str, pack: list[Job], said: dict[str, Any], shared: _Shared, progress: Progress
) -> None:
    """A pack goes on in another worker than it began in."""
    allowed = 1 + shared.config[FinetuneConfig].max_failures
    attempt, step = said["attempt"], sum(said["steps"].values())
    of = f" of {allowed}" if attempt <= allowed else ""
    progress.say(
        f"  {name}: a worker was lost; attempt {attempt}{of} goes on at step {step:,} of "
        f"{sum(job.steps for job in pack):,}, which is kept",
        level="warning",
        pack=name,
        pack_attempt=attempt,
        step=step,
    )


def _left(pack: list[Job], shared: _Shared) -> list[Job]:
    """Adapters of a pack that are not complete."""
    settings = shared.config[FinetuneConfig]
    return [job for job in pack if not complete(shared.work, job, settings)]


def _fit(packs: dict[str, list[Job]], shared: _Shared, cpus: float) -> None:
    """A Ray Train run with a worker per pack; resuming is by `work`, not by Ray's checkpoints."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from raysynth.finetune.trainer import trainer_kind

    resources, work = shared.config[ResourcesConfig], shared.work
    gpus = resources.gpus_per_worker
    trainer = trainer_kind(local=is_local(resources))(
        train_worker,
        train_loop_config={
            "packs": {name: [asdict(job) for job in pack] for name, pack in packs.items()},
            "training": shared.training.to_dict(),
            "finetune": shared.config[FinetuneConfig].model_dump(),
            "base": shared.config[BaseConfigSection].model_dump(),
            "resources": resources.model_dump(),
            "seed": shared.config.seed,
            "groups": shared.groups.to_dict(),
            "real": shared.real,
            "work": work,
            "turn": shared.turn,
            "run": CONTEXT.get("run", ""),
            "cpus": cpus,
        },
        scaling_config=ScalingConfig(
            num_workers=len(packs),
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name=f"{'-'.join(packs)[:40]}-{uuid.uuid4().hex[:8]}",
            storage_path=f"{work}/.train",
            failure_config=FailureConfig(max_failures=shared.config[FinetuneConfig].max_failures),
        ),
    )
    trainer.fit()


def _crashed(future: Future[None], pack: list[Job], shared: _Shared) -> dict[str, str]:
    """The unfinished adapters of a pack whose worker died more often than allowed."""
    error = future.exception()
    if error is None:
        return {}
    reason = f"worker failed: {type(error).__name__}: {reason_of(error)}"
    return {job.name: reason for job in _left(pack, shared)}


def _clusters_file(clusters: str) -> str:
    return open_storage(f"{clusters}/clusters.parquet")[1]


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_finetune`."""
    real, clusters = work.path("ingest"), work.path("clustering")
    given = (work.groups, work.folder, work.progress, work.tracker)
    return run_finetune(work.config, real, clusters, *given)
