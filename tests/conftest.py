"""Shared fixtures: one real local Ray for the whole session, quiet and without telemetry."""

from __future__ import annotations

import os
import tempfile

import pytest

from raysynth.cluster import ENVIRONMENT
from raysynth.local_ray import LOCAL_ENVIRONMENT

# Before Ray is imported: a stage's test starts no session, which would set them.
for name, value in {**ENVIRONMENT, **LOCAL_ENVIRONMENT}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def ray_local():
    """A local Ray with eight logical CPUs, shared by all tests that need one."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=8,
            object_store_memory=300_000_000,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=tempfile.mkdtemp(prefix="ry", dir="/tmp"),
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
