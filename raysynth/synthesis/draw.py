"""The Ray Data job: rows of the plan -> images -> blocks on disk, told of one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import Dataset

from raysynth.cluster.workers import TASK_CPUS, actor_pool, busy_task_cpus, run_pool
from raysynth.scoring.columns import scores_of
from raysynth.synthesis.actor import Synthesizer
from raysynth.synthesis.blocks import Block, block_of, write_block
from raysynth.synthesis.plan import Plan, Spoken, batches
from raysynth.synthesis.sources import write_specs
from raysynth.synthesis.task import Task
from raysynth.synthesis.timeline import COLUMN, spans_of

SPECS_FOLDER = "specs"
CALLS_PER_ACTOR = 2  # one holds the device, the other prepares its batch or hands one on


def draw(
    task: Task,
    plan: Plan,
    missing: NDArray,
    work: str,
    real: str,
    take: Callable[[Block, pa.Table], None],
) -> None:
    """Draw rows of the plan and write them as blocks below `work`.

    Parameters
    ----------
    missing : [R, 2] the ranges of rows that are drawn.
    real : folder or URI of the real table, where its images are edited.
    take : is told of every block once it is on disk, with the spans of the time it took.
    """
    edited = isinstance(plan, Spoken) and plan.sources is not None
    asked = _edits(task, plan, missing, work, real) if edited else _ranges(task, missing)
    resources = task.resources
    # PNG keeps a core busy, and a worker process costs a second and 0.2 GB: at `TASK_CPUS`, meant
    # for tasks that wait for files, dozens would start as soon as images come fast.
    written = asked.map_batches(
        Synthesizer,
        fn_constructor_args=(task, None if edited else plan),
        batch_size=task.drawing.synthesis.batch_size if edited else 1,
        batch_format="pyarrow",
        **actor_pool(resources, task.drawing.synthesis.actors, calls=CALLS_PER_ACTOR),
    ).map_batches(
        write_block,
        fn_kwargs=_told(task, work),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=busy_task_cpus(resources),
    )

    run_pool(written, partial(_follow, take))


def _told(task: Task, work: str) -> dict[str, Any]:
    """What `write_block` is told besides."""
    return {
        "scores": _columns(task),
        "work": work,
        "maker": task.maker,
        "size": task.drawing.size,
    }


def _follow(take: Callable[[Block, pa.Table], None], written: Dataset) -> None:
    for told in written.iter_batches(batch_size=None, batch_format="pyarrow"):
        for place, row in enumerate(told.select(["file", "ranges"]).to_pylist()):
            spans = spans_of(told[COLUMN.name].slice(place, 1))
            take(block_of(row["file"], row["ranges"]), spans)


def _ranges(task: Task, missing: NDArray) -> Dataset:
    """A row for every batch, its first row of the plan and its last: the actors know the rest."""
    asked = batches(missing, task.drawing.synthesis.batch_size)
    # One table is one block to Ray Data, hence one actor and nothing to stream: cut it.
    return ray.data.from_arrow(asked).repartition(target_num_rows_per_block=1)


def _edits(task: Task, plan: Plan, missing: NDArray, work: str, real: str) -> Dataset:
    """Specs with the images that they edit, through files: an actor could not hold them."""
    tables = [plan.specs(start, stop) for start, stop in missing.tolist()]
    write_specs(pa.concat_tables(tables), real, f"{work}/{SPECS_FOLDER}")
    return ray.data.read_parquet(
        f"{work}/{SPECS_FOLDER}",
        num_cpus=TASK_CPUS,
        partitioning=None,  # a run may lie below `seed=1`, which is no column
    ).repartition(target_num_rows_per_block=task.drawing.synthesis.batch_size)


def _columns(task: Task) -> pa.Schema:
    """What is said of every image besides a candidate's own columns."""
    scores = scores_of([scorer.name for scorer in task.drawing.synthesis.scorers])
    return pa.schema([*scores, *task.drawing.told])
