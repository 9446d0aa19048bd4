"""Tasks of the run's workers find the same processes again."""

from __future__ import annotations

import os
import time

import ray

from raysynth.cluster.tasks import on_worker
from raysynth.config.files import load_config


def _process(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_a_local_rays_workers_are_found_again_and_no_other_task_takes_them(ray_local):
    resources = load_config(None).resources
    task, other = on_worker(_process, resources), ray.remote(_process)
    first = {*ray.get([task.remote(n) for n in range(2)])}
    others = {*ray.get([other.remote(n) for n in range(4)])}
    again = {*ray.get([task.remote(n) for n in range(2)])}
    assert len(first | again) <= 2
    assert not others & (first | again)


def test_a_clusters_tasks_keep_its_runtime_environment():
    resources = load_config(None, ["resources.address=10.0.0.1:6379"]).resources
    assert on_worker(_process, resources)._default_options.get("runtime_env") is None
