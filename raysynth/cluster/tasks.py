"""Functions as tasks on the run's workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from raysynth.cluster.settings import ResourcesConfig


def on_worker(function: Callable[..., Any], resources: ResourcesConfig, **options: Any) -> Any:
    """`function` as a Ray task that takes what one worker takes; `options`: Ray's others."""
    asked = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    return ray.remote(**asked, **options)(function)
