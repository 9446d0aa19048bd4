"""A job submitted to a real head, as docs/cluster.md says."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """A Ray head of its own with a job server; yields its address and the environment."""
    folder = tempfile.mkdtemp(prefix="rj", dir="/tmp")
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "PATH": bin_first,
    }
    environment.pop("RAY_ADDRESS", None)
    port, dashboard = free_port(), free_port()
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=8"]
    command += [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(dashboard)
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"no job server on port {port}")


def submit(head, script: str, *arguments: str) -> subprocess.CompletedProcess:
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--"]
    command += ["python", script, *arguments]
    for _ in range(60):  # the head answers before its job agent is there
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(1)
    return done


@pytest.mark.cluster
def test_a_submitted_stage_writes_to_the_storage_path(head, tmp_path):
    sizes = ["train_images=40", "validation_images=8", "test_images=8", "severity=0.8"]
    overrides = [f"storage_path={tmp_path}", "name=job", *(f"dataset.{s}" for s in sizes)]
    done = submit(head, "jobs/ingest.py", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "job/real/train-00000.parquet").exists()


@pytest.mark.cluster
def test_a_relative_storage_path_is_refused(head):
    done = submit(head, "jobs/full_pipeline.py", "storage_path=runs")
    assert done.returncode != 0
    assert "relative path 'runs' inside a Ray job" in done.stdout + done.stderr


@pytest.mark.cluster
def test_more_than_the_cluster_has_is_refused(head, tmp_path):
    overrides = [f"storage_path={tmp_path}", "name=job", "resources.workers=900"]
    done = submit(head, "jobs/ingest.py", *overrides)
    assert done.returncode != 0
    assert "asks for 900 CPUs, the Ray cluster has 8" in done.stdout + done.stderr
