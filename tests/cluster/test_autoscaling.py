"""A cluster that grows: demand of a run starts nodes, and those that idle leave.

The autoscaler and its schema are Ray's; only the machines are processes of this one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.rays import address_at, environment, free_port, ray_head
from tests.test_pipeline import MINIATURE
from tests.test_reliability import SMALL, images

NODE = {"node_config": {}, "min_workers": 0}
STORE = {"object_store_memory": 100_000_000}
IDLE_MINUTES = 0.1
WIDE = ("resources.autoscales=true", "resources.gpus_per_worker=1", "search.gpus_per_trial=1")
WATCH = """
import sys, time
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info
while True:
    up = [node.resources_total for node in nodes().values() if node.state == 0]
    kinds = ["gpu" if "GPU" in one else "cpu" if one.get("CPU") else "head" for one in up]
    print(round(time.time(), 1), *sorted(kinds), flush=True)
    time.sleep(0.5)
"""


def described(address: str) -> dict:
    """A cluster of a head without work, and of CPU and GPU nodes from zero."""
    types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu_worker": {"resources": {"CPU": 4, **STORE}, **NODE, "max_workers": 1},
        "gpu_worker": {"resources": {"CPU": 4, "GPU": 1, **STORE}, **NODE, "max_workers": 1},
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    return {
        "cluster_name": "grows",
        "max_workers": 2,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,  # all nodes have one address
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "docker": {},
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "head_node": {},
        "worker_nodes": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in (*commands, "worker_start_ray")},
    }


@contextmanager
def watched(address: str, env: dict[str, str], log: Path) -> Iterator[None]:
    """Write down, twice a second, which nodes are up."""
    with log.open("wb") as file:
        watcher = subprocess.Popen([sys.executable, "-c", WATCH, address], env=env, stdout=file)
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def seen(log: Path) -> list[list[str]]:
    """The nodes that were up, as often as was looked."""
    return [line.split()[1:] for line in log.read_text().splitlines() if line.count(" ")]


@dataclass(frozen=True)
class Grown:
    """A cluster from zero, and what is asked of runs on it."""

    env: dict[str, str]
    log: Path
    given: tuple[str, ...]
    folder: Path

    def run(self, job: str) -> list[list[str]]:
        """Run a job up to its stage: the nodes that were up meanwhile, as often as was looked."""
        before = len(seen(self.log))
        command = [sys.executable, f"jobs/{job}.py", *MINIATURE, *SMALL, *self.given]
        made = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
        return seen(self.log)[before:]

    def wait_until_idle(self) -> None:
        """Until all nodes have left but the head."""
        until = time.monotonic() + 120
        while seen(self.log)[-1] != ["head"]:
            assert time.monotonic() < until, f"still up: {seen(self.log)[-1]}"
            time.sleep(1)


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Iterator[Grown]:
    """Its head has no CPU at all: whatever is asked is wider than the cluster."""
    folder = tmp_path_factory.mktemp("grown")
    file, log = folder / "cluster.yaml", folder / "nodes"
    env = environment(RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")
    port = free_port()
    file.write_text(yaml.safe_dump(described(address_at(port))))
    with ray_head(env, "--num-cpus=0", f"--autoscaling-config={file}", port=port) as address:
        given = (f"storage_path={folder}/runs", f"resources.address={address}", *WIDE)
        with watched(address, env, log):
            yield Grown(env, log, given, folder)


def most(nodes: list[list[str]], kind: str) -> int:
    return max(each.count(kind) for each in nodes)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_stage_without_a_use_for_a_gpu_starts_none(grown):
    nodes = grown.run("ingest")
    assert most(nodes, "cpu") == 1 and most(nodes, "gpu") == 0
    grown.wait_until_idle()


@pytest.mark.slow
@pytest.mark.cluster
def test_nodes_come_on_demand_and_leave_when_idle(grown):
    nodes = grown.run("synthesize")
    assert most(nodes, "gpu") == 1
    assert len(images(f"{grown.folder}/runs/mini/synthetic")) == 64
    grown.wait_until_idle()
    assert {*map(tuple, grown.run("select_images"))} == {("head",)}, "selection needs no node"
