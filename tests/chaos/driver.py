"""A driver in a process of its own: what it says, what it starts, and its end."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.miniature import NAME

POLL_SECONDS = 0.02
CHILDREN_SECONDS = 0.5
HEARTBEAT = re.compile(r"\((?:[\d.]+ s|\d+ min|\d+ [hd] \d+ \w+)\)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FOREIGN = re.compile(r'^\(\w*raylet|^Traceback |^\s+File "|^\w+(\.\w+)+(Error|Exception)\b')
"""Lines that are Ray's or Python's own, not raysynth's."""


class TimeLimitError(Exception):
    """Something took longer than a moment may."""


class Driver:
    """A command that is followed; as a context manager it leaves no process behind."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, limit: float
    ) -> None:
        """`log`: file for its output; `limit`: seconds that it may take."""
        self._log = log
        self.begun = time.monotonic()
        self._limit = limit
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._known: dict[int, psutil.Process] = {}
        self._looked, self._killed = 0.0, 0

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._remember()
        for process in [*self._known.values()]:
            with suppress(psutil.Error):  # knows by its start whether the pid is another's now
                process.kill()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        psutil.wait_procs([*self._known.values()], timeout=10)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def text(self) -> str:
        """All that it has said."""
        return COLOURS.sub("", self._log.read_text(errors="replace"))

    def send(self, number: int) -> None:
        """Send the driver alone a signal."""
        self._remember()
        self._process.send_signal(number)

    def until(self, reached: Callable[[], bool]) -> bool:
        """Wait until `reached()` or the driver's end; whether it was reached."""
        while not reached():
            if self.code is not None:
                return False
            now = time.monotonic()
            if now - self._looked > CHILDREN_SECONDS:
                self._looked = now
                self._remember()
            if now - self.begun > self._limit:
                raise TimeLimitError(f"the driver still runs after {self._limit:.0f} s")
            time.sleep(POLL_SECONDS)
        return True

    def end(self, look: Callable[[float], None] = lambda now: None) -> int:
        """Wait for its end, calling `look` with the time; its exit code."""

        def looked() -> bool:
            look(time.monotonic())
            return False

        self.until(looked)
        assert self.code is not None
        return self.code

    def kill_one(self, pattern: str) -> str:
        """SIGKILL the first of its Ray's processes whose title matches; its title, "": none."""
        for process in self._matching(pattern):
            title = title_of(process)
            self._remember()
            with suppress(psutil.Error):
                process.kill()
                self._killed = process.pid
                return title
        return ""

    def replaced(self, pattern: str) -> bool:
        """Whether another process than the one that was killed has such a title."""
        return any(process.pid != self._killed for process in self._matching(pattern))

    def _matching(self, pattern: str) -> list[psutil.Process]:
        with suppress(psutil.Error):
            found = descendants(psutil.Process(self._process.pid))
            return [process for process in found if re.search(pattern, title_of(process))]
        return []

    def _remember(self) -> None:
        """Processes outlive who started them: they are known by then."""
        with suppress(psutil.Error):
            for process in descendants(psutil.Process(self._process.pid)):
                self._known.setdefault(process.pid, process)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """What a process started, and so on."""
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def title_of(process: psutil.Process) -> str:
    """What a process calls itself; Ray's workers: ray::<what they run>."""
    with suppress(psutil.Error):
        return (process.cmdline() or [""])[0]
    return ""


def said(texts: Sequence[str], usual: str) -> tuple[str, int]:
    """The line by which a user knows what happened, and how many lines are not raysynth's.

    `texts`: of the drivers, in order; `usual`: what an undisturbed one says. Of lines that it does
    not say, raysynth's own refusal comes first, then the first of its own, then Ray's; "nothing"
    where there is none.
    """
    known = {_plain(_of_run(line)) for line in usual.splitlines()}
    lines = [
        line.strip()
        for text in texts
        for line in _of_run(text).splitlines()
        if line.strip() and not HEARTBEAT.search(line) and _plain(line) not in known
        if not line.startswith("✓")
    ]
    foreign = sum(bool(FOREIGN.match(line)) for text in texts for line in text.splitlines())
    refused = [line for line in lines if line.startswith("raysynth:")]
    own = [line for line in lines if not FOREIGN.match(line)]
    return (refused or own or lines or ["nothing"])[0], foreign


def _of_run(text: str) -> str:
    """A text in which a run's folder, which differs from moment to moment, is RUN."""
    return re.sub(rf"[^\s'\"]*/{NAME}\b", "RUN", text)


def _plain(line: str) -> str:
    return re.sub(r"[\d.,]+", "0", line.strip())
