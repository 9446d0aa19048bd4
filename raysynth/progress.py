"""Progress that never stands still: live on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from raysynth.terminal import shown

HEARTBEAT_SECONDS = 5.0


class Standing(NamedTuple):
    """How far a stage is: `what` `done`/`total`, in its `seconds`-th second."""

    stage: str
    what: str
    done: float
    total: float
    seconds: float


class Progress:
    """Says what runs, how far it is and for how long; safe to call from any thread."""

    def __init__(self, console: Console | None = None) -> None:
        """`console`: where to write; None: standard output."""
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._name, self._what, self._done, self._total = "", "", 0.0, 0.0
        self._start = time.monotonic()
        self._thread: threading.Thread | None = None
        self._status = self.console.status("") if self.console.is_terminal else None
        self._others: list[Beside] = []

    def __enter__(self) -> Progress:
        if self._status:
            self._status.start()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._status:
            self._status.stop()

    def stage(self, name: str) -> None:
        """A stage begins."""
        with self._lock:
            self._name, self._what, self._done, self._total = name, "", 0.0, 0.0
            self._start = time.monotonic()

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        """Say how far the stage is: `what` 120/400."""
        with self._lock:
            self._what, self._done, self._total = what, done, total

    def say(self, text: str, mark: str = "") -> None:
        """A line that stays, as it is written; `mark`: a sign before it, in green."""
        self.console.print(Text.assemble((f"{mark} " if mark else "", "green"), shown(text)))

    def beside(self) -> Beside:
        """The display of a stage that runs beside this one's: in the same line, behind it."""
        other = Beside(self.console)
        self._others.append(other)
        return other

    def standing(self) -> list[Standing]:
        """How far the stage is, and those that run beside it."""
        with self._lock:
            seconds = time.monotonic() - self._start
            own = Standing(self._name, self._what, self._done, self._total, seconds)
        return [
            own,
            *(each for other in list(self._others) for each in other.standing() if each.stage),
        ]

    def _line(self, indent: str = "") -> Text:
        line = Text(indent)
        for number, (name, what, done, total, seconds) in enumerate(self.standing()):
            count = f" {done:.0f}/{total:.0f}" if total else ""
            told = f" {shown(what)}{count} ({seconds:.0f} s)"
            line.append("; " if number else "").append(name, "bold").append(told)
        return line

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.5 if self._status else 1.0):
            if not self._name:
                continue
            if self._status:
                self._status.update(self._line())
            elif time.monotonic() - last >= HEARTBEAT_SECONDS:
                last = time.monotonic()
                self.console.print(self._line("  "))


class Stopped(Exception):
    """A stage beside others was told to end, and heard it where it would say how far it is."""


class Beside(Progress):
    """The display of a stage in a thread of its own; `end` ends that stage at its next update."""

    def __init__(self, console: Console) -> None:
        """`console`: that of the display beside which this one is."""
        super().__init__(console)
        self._ended = threading.Event()

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        """See `Progress.update`; raises Stopped after `end`."""
        if self._ended.is_set():
            raise Stopped
        super().update(what, done, total)

    def end(self) -> None:
        """Show nothing more, and let the stage end."""
        self._ended.set()
        self.stage("")
