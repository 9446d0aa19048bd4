"""A run's log, `<run>/log/`: what the display said, with the time, and what libraries warned of.

Every start of a run is an attempt with files of its own, `<attempt>-<start>-<part>.txt`: sorted by
name they are the log. On a disk lines are appended; an object store has no appending, there the
part that is being written is put again at most every half minute. Whatever fails in here, the run
does not hear of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from raysynth.errors import first_line, refusal_in
from raysynth.json_lines import CONTEXT, as_json, json_line, now
from raysynth.progress import Event
from raysynth.storage.files import make_folder, open_storage, remove, write_atomic
from raysynth.terminal import clipped, masked, shown

FOLDER = "log"
DISK_SECONDS, STORE_SECONDS = 1.0, 30.0
"""Between two writes, on a disk and on an object store."""
PART_BYTES = 2**20
"""A part that has reached this is followed by the next."""
ATTEMPTS = PARTS = 20
"""Starts whose logs are kept, and parts of each, the newest: a library may warn without end."""
LONGEST_LINE = 4000
END_SECONDS = 2.0
"""The last lines have as long to be written, when a run ends."""
NAME = re.compile(r"(\d{4,})-\d{8}T\d{6}Z-\d{3}\.txt")


class Log:
    """Takes events from any thread, and writes them in one of its own; a context manager."""

    def __init__(self, root: str, name: str) -> None:
        """`root`, `name`: the run's folder or URI, and its name."""
        self.folder, self._run, self._json = f"{root}/{FOLDER}", name, as_json()
        self._start = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._waiting: list[str] = []
        self._part, self._written, self._ended = 0, b"", False
        self._disk, self.attempt = True, 1
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def __enter__(self) -> Log:
        with contextlib.suppress(Exception):
            self._open()
        CONTEXT.update(run=self._run, attempt=self.attempt)
        self._thread.start()
        program = os.path.basename(sys.argv[0]).replace("__main__.py", "raysynth")
        command = shlex.join((program, *sys.argv[1:]))
        self(Event("", f"raysynth {version('raysynth')}, attempt {self.attempt}: {command}"))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            own = refusal_in(error)
            told = str(own) if own else f"{type(error).__name__}: {first_line(error)}"
            self(Event("", f"the run ends: {told}", "error"))
        elif error is not None:
            self(Event("", "stopped; the same command goes on", "warning"))
        else:
            self(Event("", "the run is done"))
        self._ended = True
        self._wake.set()
        self._thread.join(END_SECONDS)

    def __call__(self, event: Event) -> None:
        """Log an event; in JSON it stands on standard error at once."""
        if self._json:
            with contextlib.suppress(Exception):  # nobody reads there any more
                stage = {"stage": event.stage} if event.stage else {}
                line = json_line(event.message, event.level, **stage, **event.numbers)
                print(line, file=sys.stderr, flush=True)
        self.keep(event)

    def keep(self, event: Event) -> None:
        """Log an event that the terminal has by itself."""
        message = clipped(shown(masked(event.message)), LONGEST_LINE)
        numbers = "".join(f"  {key}={value}" for key, value in event.numbers.items())
        line = f"{now()} {event.level:<8} {event.stage:<14} {message}{shown(numbers)}\n"
        with self._lock:
            self._waiting.append(line)

    def _open(self) -> None:
        """The attempt's number; logs of attempts long ago go."""
        storage, path = open_storage(self.folder, patience=0)
        self._disk = storage.is_disk
        make_folder(self.folder)
        storage.invalidate_cache()
        there = [name.rstrip("/").rsplit("/", 1)[-1] for name in storage.ls(path, detail=False)]
        known = {name: int(match[1]) for name in there if (match := NAME.fullmatch(name))}
        self.attempt = 1 + max(known.values(), default=0)
        for name, attempt in known.items():
            if attempt <= self.attempt - ATTEMPTS:
                storage.rm_file(f"{path}/{name}")

    def _path(self, part: int) -> str:
        return f"{self.folder}/{self.attempt:04d}-{self._start}-{part:03d}.txt"

    def _write(self) -> None:
        """Until the run's end; what could not be written is, with what follows, the next time."""
        while not self._ended:
            # The first lines of a run on an object store are there at once too.
            self._wake.wait(DISK_SECONDS if self._disk or not self._written else STORE_SECONDS)
            with contextlib.suppress(Exception):
                self._flush()
        with contextlib.suppress(Exception):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
        data = "".join(lines).encode(errors="backslashreplace")
        if not data:
            return
        path = self._path(self._part)
        try:
            if self._disk:
                with open(open_storage(path)[1], "ab") as file:
                    file.write(data)
            else:
                write_atomic(path, self._written + data, patience=0)
        except Exception:
            with self._lock:
                self._waiting = [*lines, *self._waiting][-PART_BYTES // 100 :]
            raise
        self._written += data
        if len(self._written) >= PART_BYTES:
            self._part, self._written = self._part + 1, b""
            if self._part >= PARTS:
                remove(self._path(self._part - PARTS))


class _Records(logging.Handler):
    """Hands what libraries log on to a run's log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            level = "error" if record.levelno >= logging.ERROR else "warning"
            self._log.keep(Event("", f"{record.name}: {record.getMessage()}", level))


@contextlib.contextmanager
def of_libraries(log: Log) -> Iterator[None]:
    """Keep in the log what libraries warn of, besides where it is shown."""
    show, handler = warnings.showwarning, _Records(log)
    seen: set[str] = set()

    def warned(message: Any, category: Any, filename: str, lineno: int, *more: Any) -> None:
        text = f"{category.__name__}: {message} ({os.path.basename(filename)}, line {lineno})"
        if text not in seen:  # a warning in a loop is one
            seen.add(text)
            log(Event("", text, "warning"))
        if not as_json():
            show(message, category, filename, lineno, *more)

    warnings.showwarning = warned  # type: ignore[assignment]
    loggers = [logging.getLogger(name) for name in (None, "ray")]  # Ray's does not hand on
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        if warnings.showwarning is warned:
            warnings.showwarning = show
