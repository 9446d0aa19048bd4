"""Functions as tasks on the run's workers, which stay and are found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from raysynth.cluster.capacity import is_local
from raysynth.cluster.settings import ResourcesConfig

RETRIES = 3
"""Times that a task or an actor begins again whose worker died, where it finds what is done."""
POOL = {"env_vars": {"RAYSYNTH_WORKER": "1"}}
"""Ray gives a task any idle worker of its runtime environment. With one of their own the tasks of
all stages find the processes that hold torch already, 3 CPU seconds each, and no other does."""


def on_worker(function: Callable[..., Any], resources: ResourcesConfig, **options: Any) -> Any:
    """`function` as a Ray task that takes what one worker takes; `options`: Ray's others."""
    asked = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    pool = {"runtime_env": POOL} if is_local(resources) else {}
    return ray.remote(**asked, **pool, **options)(function)
