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
STARTS = 3
STARTED = b"Ray runtime started"


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
            "PYTHONUNBUFFERED": "1",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._scratch = scratch
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._known: dict[int, psutil.Process] = {}
        self._count = workers

    def __enter__(self) -> Nodes:
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        try:
            self._start(*head)
            for _ in range(self._count):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            _lose(node)
        for process in self._known.values():  # of nodes that did not come up
            with suppress(psutil.Error):
                process.kill()

    def add(self) -> None:
        """A node that works joins."""
        self._start(f"--address={self.address}", f"--num-cpus={CPUS}")

    def lose(self, pattern: str) -> str:
        """SIGKILL all processes of a node of which one's title matches; that title, "": none."""
        for node in self._nodes[1:]:
            if found := _title(node, pattern):
                _lose(node)
                return found
        return ""

    def runs(self, pattern: str) -> bool:
        """Whether a process of a node that is left has a title that matches."""
        return any(_title(node, pattern) for node in self._nodes[1:])

    def _start(self, *given: str) -> None:
        """Start a node and wait until it is up; a busy machine may take several attempts."""
        command = [RAY, "start", "--block", "--disable-usage-stats", *given]
        command.append(f"--object-store-memory={STORE_BYTES}")
        for attempt in range(STARTS):
            path = self._scratch / f"node-{len(self._nodes)}-{attempt}.log"
            with path.open("wb") as log:
                node = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
            deadline = time.monotonic() + START_SECONDS
            while node.poll() is None and time.monotonic() < deadline:
                if STARTED in path.read_bytes():
                    self._nodes.append(node)
                    return
                with suppress(psutil.Error):
                    started = descendants(psutil.Process(node.pid))
                    self._known.update((process.pid, process) for process in started)
                time.sleep(0.2)
            _lose(node)
        raise RuntimeError(f"a Ray node did not start: {path.read_text()[-500:]}")


def _title(node: subprocess.Popen[bytes], pattern: str) -> str:
    """The first title of a node's processes that matches; "": none, or the node is gone."""
    if node.poll() is not None:
        return ""
    with suppress(psutil.Error):
        titles = map(title_of, descendants(psutil.Process(node.pid)))
        return next((title for title in titles if re.search(pattern, title)), "")
    return ""


def _lose(node: subprocess.Popen[bytes]) -> None:
    """As a machine that is gone: nothing of it says good-bye."""
    with suppress(psutil.Error):
        lost = psutil.Process(node.pid)
        for process in [lost, *descendants(lost)]:
            with suppress(psutil.Error):
                process.kill()
    node.wait()
