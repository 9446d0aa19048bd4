"""Progress that never stands still: live on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from raysynth.json_lines import as_json
from raysynth.terminal import shown

HEARTBEAT_SECONDS = 5.0
LOGGED_SECONDS = 60.0
"""Between two lines of a log that say only how far a stage is."""


@dataclass(frozen=True)
class Event:
    """Something that a display was told, for a log."""

    stage: str
    message: str
    level: str = "info"
    """info, warning or error; progress: how far a stage is."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What a program would otherwise read from the message: done, total, adapter, ..."""


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
        """`console`: where to write; None: standard output, where nobody reads JSON instead."""
        self.console = console or Console(
            file=sys.stdout, highlight=False, soft_wrap=True, quiet=as_json()
        )
        self.log: Callable[[Event], None] = lambda event: None
        """Is told what the display is told."""
        self.meter: Callable[[str, float], None] = lambda stage, share: None
        """Is told every moment how much of a stage is done, 0 to 1, where that is known."""
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
            before = self._name
            self._name, self._what, self._done, self._total = name, "", 0.0, 0.0
            self._start = time.monotonic()
        if name not in ("", before):
            self.log(Event(name, f"{name} begins"))

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        """Say how far the stage is: `what` 120/400."""
        with self._lock:
            self._what, self._done, self._total = what, done, total

    def say(self, text: str, mark: str = "", level: str = "info", **numbers: Any) -> None:
        """A line that stays, as it is written; `mark`: a sign before it, in green.

        `level`, `numbers`: for the log, see `Event`.
        """
        self.console.print(Text.assemble((f"{mark} " if mark else "", "green"), shown(text)))
        self.note(text, level, **numbers)

    def note(self, text: str, level: str = "info", **numbers: Any) -> None:
        """A line for the log alone."""
        self.log(Event(self._name, " ".join(text.split()), level, numbers))

    @property
    def reached(self) -> str:
        """How far the stage is, such as `images generated 120/400`; "" before it has said so."""
        with self._lock:
            return f"{self._what} {self._done:.0f}/{self._total:.0f}" if self._total else ""

    def beside(self) -> Beside:
        """The display of a stage that runs beside this one's: in the same line, behind it."""
        other = Beside(self.console)
        other.log, other.meter = self.log, self.meter
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

    def _tell(self, *, logs: bool) -> None:
        """Tell meter and, if it is time, log how far the stage is."""
        with self._lock:
            name, what, done, total = self._name, self._what, self._done, self._total
            seconds = round(time.monotonic() - self._start, 1)
        if name and total:
            self.meter(name, done / total)
        if name and logs:
            count = {"done": done, "total": total} if total else {}
            self.log(Event(name, what or "at work", "progress", {**count, "seconds": seconds}))

    def _beat(self) -> None:
        last = logged = time.monotonic()
        while not self._stop.wait(0.5 if self._status else 1.0):
            if not self._name:
                continue
            due = time.monotonic() - logged >= LOGGED_SECONDS
            logged = time.monotonic() if due else logged
            for each in (self, *self._others):
                each._tell(logs=due)
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
