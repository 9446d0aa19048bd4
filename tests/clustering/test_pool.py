"""What the tasks around an actor pool ask for."""

import pytest

from raysynth.cluster import logical_cpus
from raysynth.clustering.pool import RESERVED_CPUS, busy_task_cpus
from raysynth.config_files import load_config

LOGICAL = logical_cpus()


@pytest.mark.parametrize(
    ("address", "cpus", "asked"),
    [("local", LOGICAL, 2.0), ("local", LOGICAL - 1, 1.0), ("10.0.0.1:6379", LOGICAL, 1.0)],
)
def test_what_keeps_a_core_busy_asks_for_half_of_a_local_core(monkeypatch, address, cpus, asked):
    """Only where logical CPUs exceed the cores: elsewhere it might not fit beside an actor."""
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": float(cpus)})
    resources = load_config(None, [f"resources.address={address}"]).resources
    assert busy_task_cpus(resources) == asked <= RESERVED_CPUS
