"""A job submitted to a real head, as docs/cluster.md says."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from raysynth.cluster.local import LOCAL_ENVIRONMENT

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
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # a new machine has none in ~/.ray
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "PATH": bin_first,
    }
    for name in ("RAY_ADDRESS", *LOCAL_ENVIRONMENT):  # this test session's own; no head's
        environment.pop(name, None)
    port, dashboard, agent = free_port(), free_port(), free_port()
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=8"]
    command += [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
    # The agent's own default, 52365, lies among the ports any connection may hold; an agent that
    # does not get it lives on without its job server.
    command += [f"--dashboard-agent-listen-port={agent}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(dashboard)
        wait_for_port(agent)
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
    deadline = time.monotonic() + 120
    while True:  # the agent listens before the head knows it
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        known = "No available agent" not in done.stdout + done.stderr
        if known or time.monotonic() > deadline:
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
