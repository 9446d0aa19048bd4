"""Ray's own processes on the driver's machine, on which everything hangs; their end is heard.

Ray ends a driver whose raylet is gone at its next word to it: without one of the driver's, and with
exit code 1. A raylet ends when it or one of its agents is killed, as by a machine whose memory is
full. Here a thread is woken by the kernel, and is there first.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil

RAYLET = "raylet"
AGENTS = {
    "DashboardAgent": re.compile(r"^ray::DashboardAgent\b|/dashboard/agent\.py"),
    "RuntimeEnvAgent": re.compile(r"^ray::RuntimeEnvAgent\b|/runtime_env/agent/main\.py"),
}
"""A raylet's agents, which it ends with, by what is in their command lines, early and later."""


class NodeWatch:
    """Calls `lost(name, pid)`, in a thread of its own, when the driver's raylet ends.

    Where the kernel cannot tell, or the raylet is not found, nothing is watched.
    """

    def __init__(self, lost: Callable[[str, int], None]) -> None:
        self._lost = lost
        self._stop, self._wake = os.pipe()
        self._watched: dict[int, tuple[str, int]] = {}
        for name, pid in _own_processes() if hasattr(os, "pidfd_open") else ():
            with suppress(OSError):  # gone already: Ray tells
                self._watched[os.pidfd_open(pid)] = (name, pid)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear nothing any more: the driver ends its Ray itself."""
        os.write(self._wake, b"\0")
        self._thread.join()
        for file in (self._stop, self._wake, *self._watched):
            os.close(file)

    def _wait(self) -> None:
        ready, _, _ = select.select([self._stop, *self._watched], [], [])
        if self._stop in ready:
            return
        for file, (name, _) in self._watched.items():
            if name in AGENTS:  # they end with their raylet, but not at once on a busy machine
                with suppress(OSError):
                    signal.pidfd_send_signal(file, signal.SIGKILL)
        self._lost(*self._watched[ready[0]])


def _own_processes() -> Iterator[tuple[str, int]]:
    """Names and pids of the raylet that this driver speaks to and its agents.

    Nothing where it cannot be found.
    """
    node: Any = getattr(sys.modules.get("ray._private.worker"), "_global_node", None)
    socket = getattr(node, "raylet_socket_name", None)
    for process in psutil.process_iter() if socket else ():
        with suppress(psutil.Error):
            if process.name() == RAYLET and any(socket in word for word in process.cmdline()):
                yield RAYLET, process.pid
                for child in process.children():
                    command = " ".join(child.cmdline())
                    for name, known in AGENTS.items():
                        if known.search(command):
                            yield name, child.pid
                return
