"""Pools of Ray Data actors: what they may ask of the cluster, and how they end."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.data import ActorPoolStrategy, Dataset

from raysynth.cluster.capacity import LOGICAL_CPUS_PER_CORE, is_local, logical_cpus
from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import RaysynthError

# Ray Data's reading and writing tasks need CPUs beside the actors; a pool that takes them all waits
# for its own input for ever.
RESERVED_CPUS = 2.0
TASK_CPUS = 0.25

RETRY_NOTE = "\nFailed to apply UDF"  # how what Ray Data adds to a worker's message begins

RAYS_REPORTS = (  # loggers to which Ray Data writes a worker's traceback, twice
    "ray.data.exceptions",
    "ray.data._internal.execution.streaming_executor_state",
)

T = TypeVar("T")


def actor_pool(resources: ResourcesConfig, actors: int, calls: int = 1) -> dict[str, Any]:
    """`map_batches` arguments for a pool of at most `actors` actors.

    As many as fit now (beside `RESERVED_CPUS`) start at once; on a cluster that grows, Ray Data
    adds the others as nodes arrive. An actor runs `calls` batches at once, in threads.
    """
    cluster = ray.cluster_resources()
    fits = (cluster.get("CPU", 0.0) - RESERVED_CPUS) / resources.cpus_per_worker
    if resources.gpus_per_worker:
        fits = min(fits, cluster.get("GPU", 0.0) / resources.gpus_per_worker)
    return {
        "compute": ActorPoolStrategy(
            min_size=min(actors, max(1, int(fits))),
            max_size=actors,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        ),
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": resources.gpus_per_worker or None,
    }


def busy_task_cpus(resources: ResourcesConfig) -> float:
    """CPUs for a task that keeps a core busy: one; on a local Ray with its logical CPUs, two.

    So no more than two such processes, of 0.2 GB each (docs/notebook/2026-11-27-streaming.md), run
    per core. Never over `RESERVED_CPUS`, which is what a pool leaves on one core.
    """
    if is_local(resources) and ray.cluster_resources().get("CPU", 0.0) >= logical_cpus():
        return LOGICAL_CPUS_PER_CORE / 2
    return 1.0


def run_pool(dataset: Dataset, consume: Callable[[Dataset], T]) -> T:
    """`consume(dataset)`; a RaysynthError of its actors is raised as they raised it.

    Ray reports it as a fault of its own and raises an error whose frames hold the pool's actors,
    and with them their CPUs, for as long as somebody (a notebook: its last error) holds the error.
    """
    dataset.context.raise_original_map_exception = True
    for name in RAYS_REPORTS:
        logging.getLogger(name).addFilter(_is_rays)
    try:
        return consume(dataset)
    except RaysynthError as error:
        failure = getattr(error, "cause", error)
    failure.args = (str(failure).partition(RETRY_NOTE)[0], *failure.args[1:])
    gc.collect()  # those frames refer to each other
    raise failure


def _is_rays(record: logging.LogRecord) -> bool:
    """Whether a log record is about another error than raysynth's."""
    error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
    return not isinstance(error, RaysynthError)
