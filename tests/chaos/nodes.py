"""A Ray cluster of several nodes on this machine, of which one can be lost."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from raysynth.cluster.local import LOCAL_ENVIRONMENT
from tests.chaos.driver import descendants, title_of

RAY = str(Path(sys.executable).with_name("ray"))
CPUS = 5
"""Of a node: a worker's, and those that Ray Data's own tasks take."""
STORE_BYTES = 150_000_000
START_SECONDS = 120


class Nodes:
    """A head without work and nodes that work; a context manager."""

    def __init__(self, scratch: Path, workers: int = 2) -> None:
        """`scratch`: short path of a folder for Ray's files."""
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", *LOCAL_ENVIRONMENT)},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(scratch),
            "RAY_worker_niceness": "0",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = scratch / "nodes.log"
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._count = workers

    def __enter__(self) -> Nodes:
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        try:
            self._begin(*head, f"--object-store-memory={STORE_BYTES}")
            self._wait_for(int(port))
            for _ in range(self._count):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            _lose(node)

    def add(self) -> None:
        """A node that works joins."""
        cpus = f"--num-cpus={CPUS}"
        self._begin(f"--address={self.address}", cpus, f"--object-store-memory={STORE_BYTES}")

    def lose(self, pattern: str) -> str:
        """SIGKILL all processes of a node of which one's title matches; that title, "": none."""
        for node in self._nodes[1:]:
            if node.poll() is not None:
                continue
            titles = map(title_of, descendants(psutil.Process(node.pid)))
            if found := next((title for title in titles if re.search(pattern, title)), ""):
                _lose(node)
                return found
        return ""

    def _begin(self, *given: str) -> None:
        with self._log.open("ab") as log:
            command = [RAY, "start", "--block", "--disable-usage-stats", *given]
            started = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._nodes.append(started)

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._nodes[0].poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"no Ray head at {self.address}: {self._log.read_text()[-500:]}")


def _lose(node: subprocess.Popen[bytes]) -> None:
    """As a machine that is gone: nothing of it says good-bye."""
    with suppress(psutil.Error):
        lost = psutil.Process(node.pid)
        for process in [lost, *descendants(lost)]:
            with suppress(psutil.Error):
                process.kill()
    node.wait()
