"""Progress of a run, said on standard error: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from raysynth.json_lines import as_json
from raysynth.pace import Pace
from raysynth.terminal import shown
from raysynth.view import Seen, Standing, line, live

LINE_SECONDS = 30.0
"""At least, between two lines of a pipe that say how far a stage is."""
SILENT_SECONDS = 300.0
"""A pipe hears so often that a run is at work where nothing has changed."""
LOGGED_SECONDS = 60.0
"""Between two lines of a log that say only how far a stage is."""
QUIET, USUAL, VERBOSE = -1, 0, 1
"""How much is said: warnings and errors alone; also what comes and how far it is; also what else
goes to the log."""


@dataclass(frozen=True)
class Event:
    """Something that a display was told, for a log."""

    stage: str
    message: str
    level: str = "info"
    """info, warning or error; progress: how far a stage is."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What a program would otherwise read from the message: done, total, adapter, ..."""


class Progress:
    """Says what runs, how far it is and for how long; safe to call from any thread."""

    def __init__(self, console: Console | None = None, loudness: int = USUAL) -> None:
        """Show nothing yet, see `__enter__`.

        Parameters
        ----------
        console : where to write; None: standard error, where somebody may read JSON instead.
        loudness : QUIET, USUAL or VERBOSE; the log is told all in any case.
        """
        self.console = console or Console(
            stderr=True, highlight=False, soft_wrap=True, quiet=as_json()
        )
        self.log: Callable[[Event], None] = lambda event: None
        """Is told what the display is told."""
        self.meter: Callable[[str, float], None] = lambda stage, share: None
        """Is told every moment how much of a stage is done, 0 to 1, where that is known."""
        self.stages: Sequence[str] = ()
        """Names of the run's stages, in order, once they are known."""
        self.made: Collection[str] = ()
        """Those that are there, made now or before."""
        self._loudness, self._own = loudness, console is None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._name, self._what, self._done, self._total = "", "", 0.0, 0.0
        self._details: dict[str, str] = {}
        self._pace = Pace()
        self._began = self._start = time.monotonic()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._terminal: IO[str] | None = None
        self._others: list[Beside] = []

    def __enter__(self) -> Progress:
        if self._own:
            self._keep_terminal()
        if self._loudness > QUIET and not self.console.quiet and _is_screen(self.console):
            redirect = sys.stdout.isatty()  # a file or pipe gets what is written to it
            self._live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=redirect
            )
            self._live.start()
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
        if self._live:
            self._live.stop()
            self._live = None
        if self._terminal:
            self.console.file = sys.stderr
            self._terminal.close()

    def _keep_terminal(self) -> None:
        """Write to a descriptor of the display's own: 2 is turned aside while Ray starts."""
        with contextlib.suppress(OSError, ValueError):  # sys.stderr may be no file at all
            if sys.stderr.fileno() == 2:
                self._terminal = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
                self.console.file = self._terminal

    def stage(self, name: str) -> None:
        """A stage begins."""
        with self._lock:
            before = self._name
            self._name, self._what, self._done, self._total = name, "", 0.0, 0.0
            self._details, self._pace = {}, Pace()
            self._start = time.monotonic()
        if name not in ("", before):
            self.log(Event(name, f"{name} begins"))

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        """Say how far the stage is: `what` 120/400."""
        with self._lock:
            if total != self._total:
                self._pace = Pace()
            self._what, self._done, self._total = what, done, total

    def detail(self, name: str, text: str) -> None:
        """What is behind the stage's count, until told anew: `adapters`, `3 done, 1 at work`."""
        with self._lock:
            self._details = {**self._details, name: text}

    def say(self, text: str, mark: str = "", level: str = "info", **numbers: Any) -> None:
        """A line that stays, as it is written; `mark`: a sign before it, in green.

        `level`, `numbers`: for the log, see `Event`.
        """
        if self._loudness > QUIET or level != "info":
            self.console.print(Text.assemble((f"{mark} " if mark else "", "green"), shown(text)))
        self._tell_log(text, level, numbers)

    def note(self, text: str, level: str = "info", **numbers: Any) -> None:
        """A line for the log, which a verbose display shows too."""
        if self._loudness >= VERBOSE:
            told = "".join(f"  {key}={value}" for key, value in numbers.items())
            self.console.print(Text(f"  {shown(text)}{shown(told)}", style="dim"))
        self._tell_log(text, level, numbers)

    def _tell_log(self, text: str, level: str, numbers: Mapping[str, Any]) -> None:
        self.log(Event(self._name, " ".join(text.split()), level, numbers))

    @property
    def reached(self) -> str:
        """How far the stage is, such as `images generated 120/400`; "" before it has said so."""
        with self._lock:
            return f"{self._what} {self._done:.0f}/{self._total:.0f}" if self._total else ""

    def beside(self) -> Beside:
        """The display of a stage that runs beside this one's: shown with it."""
        other = Beside(self.console, self._loudness)
        other.log, other.meter = self.log, self.meter
        self._others.append(other)
        return other

    def standing(self) -> list[Standing]:
        """How far the stage is, and those that run beside it."""
        with self._lock:
            now = time.monotonic()
            rate = self._pace.at(now, self._done) if self._total else None
            counted = (self._what, self._done, self._total, now - self._start)
            own = Standing(self._name, *counted, self._details, rate)
        return [
            own,
            *(each for other in list(self._others) for each in other.standing() if each.stage),
        ]

    def seen(self) -> Seen:
        """What there is to be shown now."""
        at = [each for each in self.standing() if each.stage and each.stage not in self.made]
        return Seen(self.stages, self.made, at, time.monotonic() - self._began)

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
        said: object = None
        while not self._stop.wait(0.5 if self._live else 1.0):
            if not self._name:
                continue
            now = time.monotonic()
            due = now - logged >= LOGGED_SECONDS
            logged = now if due else logged
            for each in (self, *self._others):
                each._tell(logs=due)
            seen = self.seen()
            if self._live:
                self._live.update(live(seen), refresh=True)
                continue
            told = [(at.stage, at.what, at.done) for at in seen.standing]
            if now - last >= (LINE_SECONDS if told != said else SILENT_SECONDS):
                last, said = now, told
                if self._loudness > QUIET:
                    self.console.print(line(seen, "  "))


def _is_screen(console: Console) -> bool:
    """Whether what is written can be written over; FORCE_COLOR makes rich take a pipe for one."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


class Stopped(Exception):
    """A stage beside others was told to end, and heard it where it would say how far it is."""


class Beside(Progress):
    """The display of a stage in a thread of its own; `end` ends that stage at its next update."""

    def __init__(self, console: Console, loudness: int = USUAL) -> None:
        """`console`, `loudness`: those of the display beside which this one is."""
        super().__init__(console, loudness)
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
