"""Lost workers and nodes in raysynth's words: what was lost, what is kept, that it goes on.

Ray prints a block for each on the driver's terminal, of ids and guesses. Here it is one line; the
block goes to the run's log.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

MERGE_SECONDS = 2.0
"""Ray says that a worker died, then, a moment later, which task it had and how often it may try."""
ROLES = {
    "Synthesizer": "a generating actor",
    "ImageEmbedder": "an embedding actor",
    "encode_rows": "a worker that encodes images",
    "write_shard": "a worker that writes a shard",
    "_train_in_worker": "a classifier's training",
    "ReadParquet": "a reading worker",
    "Write": "a writing worker",
}
"""What has one of these in its name, to Ray -> what it is."""
DIED = re.compile(r"A worker died or was killed")
RETRIED = re.compile(r"Task (?P<task>.+?) failed\..*?(?P<left>\d+|infinite) retries remaining")
MEMORY = re.compile(
    r"low on memory|memory pressure|OutOfMemory|killed by the memory monitor", re.IGNORECASE
)
FULL = "its node's memory was full: fewer workers per node or smaller batches take less"
NODE = re.compile(r"node with node id: \w+ and address: (?P<address>\S+)", re.IGNORECASE)
PROCESS = re.compile(r"Worker PID: (?P<pid>\d+)")
ADDRESS = re.compile(r"Worker IP address: (?P<address>\S+)")


@dataclass(frozen=True)
class Loss:
    """What was lost, as far as Ray has said it."""

    what: str = "a worker"
    process: str = ""
    """Such as `process 17 on 10.0.0.5`."""
    reason: str = ""
    left: str = ""
    """How often it may still be tried: a number, or infinite."""

    @property
    def told(self) -> str:
        """A clause, without what is kept."""
        more = ", ".join(each for each in (self.process, self.reason) if each)
        tries = "" if self.left in ("", "infinite") else f"; tries left: {self.left}"
        return f"{self.what} was lost{f' ({more})' if more else ''}{tries}"

    def with_more(self, more: Loss) -> Loss:
        """What two messages say of one loss."""
        what = more.what if more.what != Loss.what else self.what
        return Loss(what, self.process, more.reason or self.reason, more.left or self.left)


def loss_of(text: str) -> Loss | None:
    """What one of Ray's messages says was lost; None: it is about something else."""
    if node := NODE.search(text):
        return Loss("a node", node["address"], "Ray hears nothing of it")
    if MEMORY.search(text) and not DIED.search(text):
        return replace(_worker(text), reason=FULL)
    if DIED.search(text):
        return replace(_worker(text), reason="killed, or crashed")
    if retried := RETRIED.search(text):
        return Loss(role_of(retried["task"]), left=retried["left"])
    return None


def role_of(task: str) -> str:
    """What a task is, by Ray's name of it."""
    found = next((role for name, role in ROLES.items() if name in task), "")
    return found or f"a worker ({task[:80]})"


def _worker(text: str) -> Loss:
    process, address = PROCESS.search(text), ADDRESS.search(text)
    at = f" on {address['address']}" if address else ""
    return Loss(process=f"process {process['pid']}{at}" if process else "")


class Losses:
    """Ray's messages, as they come: a line of each loss for `say`, each whole text for `keep`."""

    def __init__(self, say: Callable[[str], None], keep: Callable[[str], None]) -> None:
        self._say, self._keep = say, keep
        self._lock = threading.Lock()
        self._waiting: Loss | None = None
        self.ending = False
        """The run ends its workers itself: none of them is lost."""

    def hear(self, text: str) -> bool:
        """Take in a message; False: it is about nothing that was lost, and is to be shown."""
        self._keep(text)
        loss = loss_of(text)
        if loss is None:
            return False
        with self._lock:
            first, self._waiting = self._waiting, None
            if loss.process or first is None:  # another one; what waited is said as it is
                if first is not None:
                    self._tell(first)
                self._waiting = loss
                timer = threading.Timer(MERGE_SECONDS, self.flush)
                timer.daemon = True
                timer.start()
            else:
                self._tell(first.with_more(loss))
        return True

    def flush(self) -> None:
        """Say what waits for more to be known."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self._tell(waiting)

    def _tell(self, loss: Loss) -> None:
        if not self.ending:
            self._say(loss.told)


@contextmanager
def heard(losses: Losses) -> Iterator[None]:
    """While open, what Ray would print of its daemons' errors goes to `losses`.

    Ray has no hook for it: its listener looks the printing function up in its module.
    """
    worker = sys.modules.get("ray._private.worker")
    printed: Any = getattr(worker, "print_to_stdstream", None)
    if printed is None:  # another Ray: it prints what it prints
        yield
        return

    def show(data: Any, *given: Any, **named: Any) -> None:
        text = "\n".join(map(str, data.get("lines", ())))
        if data.get("pid") != "raylet" or not losses.hear(text):
            printed(data, *given, **named)

    setattr(worker, "print_to_stdstream", show)  # noqa: B010
    try:
        yield
    finally:
        setattr(worker, "print_to_stdstream", printed)  # noqa: B010
        losses.flush()
