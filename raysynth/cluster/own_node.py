"""Ray's own processes on the driver's machine, on which everything hangs; their end is heard.

Ray ends a driver whose raylet is gone at its next word to it: without one of the driver's, and with
exit code 1. A raylet ends when it or one of its agents is killed, as by a machine whose memory is
full. Here a thread is woken by the kernel, and is there first.
"""

from __future__ import annotations

import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil

AGENT = re.compile(r"^ray::\w+Agent\b|/agent/main\.py|/agent\.py")
"""What is in the command line of a raylet's agents, which it ends with."""


class NodeWatch:
    """Calls `lost(name, pid)`, in a thread of its own, when the driver's raylet ends.

    Where the kernel cannot tell, or the raylet is not found, nothing is watched.
    """

    def __init__(self, lost: Callable[[str, int], None]) -> None:
        self._lost = lost
        self._stop, self._wake = os.pipe()
        self._watched: dict[int, tuple[str, int]] = {}
        for process in _own_processes() if hasattr(os, "pidfd_open") else ():
            with suppress(OSError, psutil.Error):  # gone already: Ray tells
                self._watched[os.pidfd_open(process.pid)] = (_name(process), process.pid)
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
        if self._stop not in ready:
            self._lost(*self._watched[ready[0]])


def _own_processes() -> Iterator[psutil.Process]:
    """The raylet that this driver speaks to and its agents; nothing where it cannot be found."""
    node: Any = getattr(sys.modules.get("ray._private.worker"), "_global_node", None)
    socket = getattr(node, "raylet_socket_name", None)
    for process in psutil.process_iter() if socket else ():
        with suppress(psutil.Error):
            if process.name() == "raylet" and any(socket in word for word in process.cmdline()):
                yield process
                for child in process.children():
                    if AGENT.search(" ".join(child.cmdline())):
                        yield child
                return


def _name(process: psutil.Process) -> str:
    return process.name().removeprefix("ray::")
