"""Ray nodes of a test's own, by `ray start`: own port and folder, ended by their pids."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from raysynth.cluster.local import LOOPBACK
from raysynth.cluster.note import stop

START_SECONDS = 120
TOKEN = secrets.token_hex(32)
"""Of all nodes and clients of these tests, wherever Ray's own is or is not."""
SMALL = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """What a node's or a client's process inherits; not what a local Ray has of raysynth."""
    kept = {
        name: value for name, value in os.environ.items() if name not in (LOOPBACK, "RAY_ADDRESS")
    }
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_worker_niceness": "0"}
    return {**kept, **ours, **more}


@contextmanager
def ray_node(env: Mapping[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node for the block; all that its process has started ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-gpus=0"]
    command += ["--object-store-memory=100000000", *SMALL, *flags]
    with (folder / "log").open("wb") as log:
        unbuffered = {**env, "PYTHONUNBUFFERED": "1"}
        node = subprocess.Popen(command, env=unbuffered, stdout=log, stderr=log)
    try:
        _wait(folder / "log", node)
        yield node
    finally:
        started = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
        born = [(each.pid, each.create_time()) for each in started]
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(5)
        stop(born)
        node.kill()
        node.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_head(env: Mapping[str, str], *flags: str, port: int = 0) -> Iterator[str]:
    """The address of a head of its own; `port`: one that a file names already."""
    address = address_at(port or free_port())
    folder = tempfile.mkdtemp(prefix="rh", dir="/tmp")
    own = ("--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}")
    try:
        with ray_node(env, *own, "--include-dashboard=false", *flags):
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def address_at(port: int) -> str:
    """A port of this machine, as Ray names it."""
    import ray

    return f"{ray.util.get_node_ip_address()}:{port}"


def _wait(log: Path, node: subprocess.Popen[bytes]) -> None:
    """Until a node says that it is up."""
    until = time.monotonic() + START_SECONDS
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)
