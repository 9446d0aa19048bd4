"""A driver's sign of life: a small file in the run's folder, written while the run is at work.

It is no output of any stage, nothing is decided by it, and no error of writing it reaches the run.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from raysynth.cluster.note import born, machine
from raysynth.cluster.stopping import at_the_end
from raysynth.endings import exit_code_of
from raysynth.errors import RaysynthError, reason_of
from raysynth.progress import Progress
from raysynth.storage.files import open_storage, read_json, write_atomic
from raysynth.terminal import clipped, masked, shown

STATUS = "status.json"
"""The file's name in the run's folder."""
DISK_SECONDS, STORE_SECONDS = 5.0, 15.0
"""Between two writes: to a disk, and to an object store, where each is a request that is paid."""
LAST_SECONDS = 3.0
"""To wait for the last write: a run that is stopped ends all the same."""
LONGEST_ERROR = 2000
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How an attempt ended."""
KILLED = "ended without a word: killed, out of memory, or its machine was lost"


class Heartbeat:
    """Writes `<run>/status.json` from a thread of its own; a context manager around the run."""

    def __init__(
        self,
        root: str,
        progress: Progress,
        until: str | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Write nothing yet, see `__enter__`.

        Parameters
        ----------
        root : folder or URI of the run.
        until : the last stage that was asked for.
        more : what else the file says, asked for at every write.
        """
        self._path, self._progress, self._until = f"{root}/{STATUS}", progress, until
        self._more = more
        self._started = time.time()
        self._unwritten = 0
        self._ended: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        at_the_end.append(self._by_force)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        at_the_end.remove(self._by_force)
        self._end(error)

    def _by_force(self, why: BaseException | None) -> None:
        self._end(why or KeyboardInterrupt())

    def _end(self, error: BaseException | None) -> None:
        """The last write: how the attempt ended."""
        now = time.time()
        if isinstance(error, Exception):
            code = exit_code_of(error)
            self._error = {"at": now, "code": code, "text": _in_a_few_lines(error)}
            self._ended = {"at": now, "how": FAILED, "code": code}
        else:
            self._ended = {"at": now, "how": STOPPED if error else FINISHED, "code": None}
        self._stop.set()
        self._thread.join(LAST_SECONDS)

    def _work(self) -> None:
        before = _quietly(lambda: read_json(self._path, patience=0))
        kept = _kept(before if isinstance(before, dict) else {})
        storage = _quietly(lambda: open_storage(self._path)[0])
        every = DISK_SECONDS if storage is None or storage.is_disk else STORE_SECONDS
        while True:
            last = self._stop.is_set()
            try:
                data = json.dumps(self._record(kept, every), default=str).encode()
                write_atomic(self._path, data, patience=0)
            except Exception:  # whatever it is: the run goes on, and the next record counts it
                self._unwritten += 1
            if last:
                return
            self._stop.wait(every)

    def _record(self, kept: dict[str, Any], every: float) -> dict[str, Any]:
        """What the file says now; `kept`: what is true of earlier attempts."""
        attempt = kept["attempts"] + 1
        return {
            "attempts": attempt,
            "first_started": kept["first_started"] or self._started,
            "started": self._started,
            "updated": time.time(),
            "every": every,
            "until": self._until,
            "driver": _driver(),
            "stages": list(self._progress.stages),
            "made": list(self._progress.made),
            "now": [{**at._asdict(), "left": at.left} for at in self._progress.standing()],
            "ended": self._ended,
            "last_error": {"attempt": attempt, **self._error} if self._error else kept["error"],
            "unwritten": self._unwritten,
            **self._more(),
        }


def _kept(before: dict[str, Any]) -> dict[str, Any]:
    """Attempts, first start and last error of the attempts before this one.

    `before`: the record that they left; one of another form says nothing.
    """
    attempts, first = before.get("attempts"), before.get("first_started")
    error = before.get("last_error")
    if before and before.get("ended") is None:
        error = {"at": before.get("updated"), "attempt": attempts, "code": None, "text": KILLED}
    return {
        "attempts": attempts if isinstance(attempts, int) else 0,
        "first_started": first if isinstance(first, int | float) else None,
        "error": error if isinstance(error, dict) else None,
    }


def _driver() -> dict[str, Any]:
    """This process, so that it can be recognised."""
    pid, start = born(os.getpid())
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": pid,
        "born": start,
        "job": submission_id(),
    }


def submission_id() -> str | None:
    """The id of the Ray job whose script this process is; None: it is none."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        found = config["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(found)


def _in_a_few_lines(error: Exception) -> str:
    text = str(error) if isinstance(error, RaysynthError) else reason_of(error)
    return clipped(shown(masked(text), lines=True), LONGEST_ERROR)


def _quietly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:  # a storage's, of whatever class
        return None
