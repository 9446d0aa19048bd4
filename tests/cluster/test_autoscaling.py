"""A cluster that grows: demand of a run starts nodes, and those that idle leave.

The autoscaler and its schema are Ray's; only the machines are processes of this one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.rays import address_at, environment, free_port, ray_head
from tests.test_pipeline import MINIATURE
from tests.test_reliability import SMALL, images

NODE = {"node_config": {}, "min_workers": 0}
STORE = {"object_store_memory": 100_000_000}
IDLE_MINUTES = 0.1
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
        "gpu_worker": {"resources": {"CPU": 4, "GPU": 1, **STORE}, **NODE, "max_workers": 2},
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    return {
        "cluster_name": "grows",
        "max_workers": 3,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {"type": "fake_multinode", "gcs_address": address},
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


def most(log: Path, kind: str) -> int:
    return max(nodes.count(kind) for nodes in seen(log))


def run(env: dict[str, str], job: str, *given: str) -> None:
    command = [sys.executable, f"jobs/{job}.py", *MINIATURE, *SMALL, *given]
    made = subprocess.run(command, env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.cluster
def test_nodes_come_on_demand_and_leave_when_idle(tmp_path):
    """The run is wider than the cluster is, which has no CPU at all: it waits, and is served."""
    log, file = tmp_path / "nodes", tmp_path / "cluster.yaml"
    env = environment(RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")
    port = free_port()
    file.write_text(yaml.safe_dump(described(address_at(port))))
    flags = ("--num-cpus=0", f"--autoscaling-config={file}")
    with ray_head(env, *flags, port=port) as address:
        gpus = ["resources.gpus_per_worker=1", "search.gpus_per_trial=1", "resources.workers=2"]
        wide = [f"resources.address={address}", "resources.autoscales=true", *gpus]
        with watched(address, env, log):
            run(env, "ingest", f"storage_path={tmp_path}/runs", *wide)
            assert most(log, "cpu") == 1 and most(log, "gpu") == 0, "ingest has no use for a GPU"
            run(env, "synthesize", f"storage_path={tmp_path}/runs", *wide)
            assert most(log, "gpu") == 2
            until = time.monotonic() + 120
            while seen(log)[-1] != ["head"]:
                assert time.monotonic() < until, f"still up: {seen(log)[-1]}"
                time.sleep(1)
    assert len(images(f"{tmp_path}/runs/mini")) == 64
