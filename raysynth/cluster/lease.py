"""Who drives a run: a lease on the run's own storage, kept by a heartbeat of its driver.

Clocks of machines differ: whether a lease is alive is told by its beats, as the reader sees them
change, and never by the times that are written in it. A lease of this machine whose process is gone
is void at once; any other without a beat for LEASE_SECONDS.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from raysynth.cluster.note import alive, born, machine
from raysynth.cluster.stopping import at_the_end, interrupt_self
from raysynth.errors import ConfigError, StorageError
from raysynth.progress import Progress
from raysynth.storage.files import create, open_storage, read_now, remove, write_atomic
from raysynth.terminal import masked, shown

LEASE = ".lease.json"
LEASE_SECONDS = 60.0
BEAT_SECONDS = 15.0
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 2.0
"""Between taking a lease over and looking whether another driver did the same."""


class Lease:
    """The lease of one run: `take` it, `check` it before anything is published, `release` it."""

    def __init__(self, root: str) -> None:
        """`root`: the run's folder or URI."""
        self.root, self.path = root, f"{root}/{LEASE}"
        self.lost = ""
        """Why the run is not this driver's any more; "": it is, or never was."""
        self._interrupts = False
        self._since = _now()
        self._session, self._beats = uuid.uuid4().hex, 0
        self._machine = machine()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, display: Progress, *, interrupts: bool = False) -> None:
        """Hold the run until `release` or this process's end.

        Parameters
        ----------
        display : is told that a lease of another machine is waited for.
        interrupts : whether this process's main thread gets SIGINT when the lease is lost.

        Raises
        ------
        ConfigError
            Another driver holds it.
        StorageError
            The storage cannot be read or written.
        """
        self._interrupts = interrupts
        first: Any = None
        while True:
            there = self._read()
            if there is None:
                create(self.path, self._content(), patience=0)
                there = self._read()
            if self._is_mine(there):
                break
            if first is None or first[0] is None:
                first = (there, time.monotonic())
                self._say(there, display)
            if self._is_void(there, first):
                write_atomic(self.path, self._content(), patience=0)
                time.sleep(0 if _is_here(there) else SETTLE_SECONDS)
                continue
            left = first[1] + LEASE_SECONDS - time.monotonic()
            display.update(f"waiting for the lease of another driver, {left:.0f} s at most")
            time.sleep(LOOK_SECONDS)
        display.update("")
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        at_the_end.append(self._let_go)

    def check(self) -> None:
        """Raise StorageError where another driver has taken the run over."""
        if self.lost:
            raise StorageError(self.lost)

    def release(self) -> None:
        """Give the run free; twice is as once. What cannot be removed runs out."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._over.set()
        thread.join()
        with suppress(StorageError, OSError):
            if self._is_mine(self._read()):
                remove(self.path)
        at_the_end.remove(self._let_go)

    def _let_go(self, why: BaseException | None) -> None:
        self.release()

    def _is_void(self, there: Any, first: tuple[Any, float]) -> bool:
        """Whether a lease may be taken over; raises ConfigError where it is alive."""
        if _is_here(there):
            if alive((there["pid"], there["born"])) is None:
                return True
            raise self._held(there)
        if there is not None and there != first[0]:
            raise self._held(there)
        return time.monotonic() - first[1] > LEASE_SECONDS

    def _held(self, there: Any) -> ConfigError:
        return ConfigError(
            f"{masked(self.root)} is being run by {_who(there)}. Fix: wait for it, stop it there, "
            "or give this run another name (name=...). Where that driver is gone, this command "
            f"takes over {LEASE_SECONDS:.0f} s after its last sign of life"
        )

    def _say(self, there: Any, display: Progress) -> None:
        if there is not None and not _is_here(there):
            display.say(
                f"  {masked(self.root)} is held by {_who(there)}; if it gives no sign of life for "
                f"{LEASE_SECONDS:.0f} s, this driver takes over"
            )

    def _keep(self) -> None:
        """Beat until `release`; end where the lease is another driver's."""
        while not self._over.wait(BEAT_SECONDS):
            with suppress(StorageError, OSError):  # the storage is away: the next beat tells
                there = self._read()
                if there and not self._is_mine(there):
                    return self._lose(there)
                self._beats += 1
                write_atomic(self.path, self._content(), patience=0)

    def _lose(self, there: Any) -> None:
        self.lost = (
            f"{masked(self.root)} was taken over by {_who(there)} while this driver was silent for "
            f"more than {LEASE_SECONDS:.0f} s. Fix: let that one finish, or stop it and give the "
            "same command again: what is finished is kept"
        )
        if self._interrupts:
            interrupt_self()

    def _is_mine(self, there: Any) -> bool:
        return isinstance(there, dict) and there.get("session") == self._session

    def _read(self) -> Any:
        """The lease that is there; None: none; {}: one that cannot be read."""
        there = read_now(self.path)
        if _is_lease(there):
            return there
        storage, name = open_storage(self.path, patience=0)
        return {} if there is not None or storage.exists(name) else None

    def _content(self) -> bytes:
        pid, started = born(os.getpid())
        content = {
            "session": self._session,
            "host": socket.gethostname(),
            "machine": self._machine,
            "pid": pid,
            "born": started,
            "since": self._since,
            "beat": self._beats,
            "beat_at": _now(),
            "lease_seconds": LEASE_SECONDS,
        }
        return json.dumps(content, indent=1).encode()


def _is_lease(value: Any) -> bool:
    kinds = {"session": str, "host": str, "machine": str, "since": str, "pid": int, "born": float}
    return (
        isinstance(value, dict)
        and all(type(value.get(key)) is kind for key, kind in kinds.items())
        and 0 < value["pid"] < 1 << 31
    )


def _is_here(lease: Any) -> bool:
    """Whether a lease was written on this machine, so that its process can be looked for."""
    return bool(lease) and lease["machine"] == machine()


def _who(lease: Any) -> str:
    if not lease:
        return "another driver (its lease cannot be read)"
    where = "this machine" if _is_here(lease) else shown(lease["host"])
    return f"process {lease['pid']} on {where} since {shown(lease['since'])}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
