"""What a pool of Ray Data actors may ask of the cluster without starving the tasks around it."""

from __future__ import annotations

from typing import Any

import ray
from ray.data import ActorPoolStrategy

from raysynth.cluster import LOGICAL_CPUS_PER_CORE, is_local, logical_cpus
from raysynth.config import ResourcesConfig

# Ray Data's reading and writing tasks (and, on resume, its checkpoint filter) need CPUs beside
# the actors; a pool that takes them all waits for its own input for ever.
RESERVED_CPUS = 2.0
TASK_CPUS = 0.25


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

    So no more than two such processes, of 0.2 GB each (docs/performance.md), run per core. Never
    over `RESERVED_CPUS`, which is what a pool leaves on one core.
    """
    if is_local(resources) and ray.cluster_resources().get("CPU", 0.0) >= logical_cpus():
        return LOGICAL_CPUS_PER_CORE / 2
    return 1.0
