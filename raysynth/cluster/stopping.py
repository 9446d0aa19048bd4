"""A command that is told to stop has ended within seconds, whatever it still waits for.

A run that is stopped unwinds: threads are joined, Ray is shut down, Python takes itself apart. Each
may take long on a busy machine or beside a storage that does not answer, and none of it is needed:
whatever is safe is so after a kill as well.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from raysynth.errors import RaysynthError
from raysynth.json_lines import to_stderr

LEAVE_SECONDS = 2.5
"""From the signal until the process leaves by force; `ray job stop` kills 3 s after its SIGTERM."""
LAST_SECONDS = 0.4
FAULT_SECONDS = 4.0
"""As LAST_SECONDS, where nobody waits for the end."""
SHOW_CURSOR = "\x1b[?25h"
STOPS = (signal.SIGINT, signal.SIGTERM)

held_terminal: list[int] = []
"""Descriptors of standard error while what is written to it is kept back (`local`)."""
at_the_end: list[Callable[[BaseException | None], None]] = []
"""What an end by force still does once nothing else runs, as far as its seconds let it.

Each is told why; None: a signal.
"""
_said = threading.Event()
_own = threading.Event()


def say_stopped(root: str = "") -> None:
    """How to go on; `root`: the run's folder."""
    _said.set()
    where = f" with {root}" if root else " where it was"
    to_stderr(f"stopped. The same command goes on{where}", "warning")


def interrupt_self() -> None:
    """KeyboardInterrupt in the main thread, for a reason of this process's own.

    Nobody waits for its end, which has as long as it takes.
    """
    _own.set()
    os.kill(os.getpid(), signal.SIGINT)


def end_for(error: RaysynthError) -> None:
    """End this process now, with an error's words and code, whatever it does; from any thread.

    Nothing happens where it is being stopped already.
    """
    if _said.is_set():
        return
    _said.set()
    _release_terminal()
    to_stderr(str(error), "error")
    _end_all(error, FAULT_SECONDS)
    _end(error.exit_code)


@contextmanager
def in_time() -> Iterator[Callable[[Any], NoReturn]]:
    """The body has LEAVE_SECONDS after Ctrl-C or SIGTERM; then Ray's processes and this one end.

    Yields `leave(code)`: `sys.exit`, which after a signal waits for no thread and no destructor.
    The signal is noticed by a thread even while the body is in C code, where no handler runs. In
    another thread than the main one, which hears no signals, the body is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield sys.exit
        return
    _said.clear()
    came: list[int] = []
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(read, came), name="stopping", daemon=True)
    watcher.start()

    def end_watch() -> None:
        os.write(write, b"\0")
        watcher.join()  # it has read the signals before: `came` is complete

    def leave(code: Any) -> NoReturn:
        end_watch()
        if came:
            _end(code if isinstance(code, int) else 128 + came[0])
        sys.exit(code)

    try:
        yield leave
    finally:
        signal.set_wakeup_fd(before)
        end_watch()
        os.close(read)
        os.close(write)
        if came:  # raised outside of what `leave` is called for
            _end(128 + came[0])


def _watch(signals: int, came: list[int]) -> None:
    """Wait for a signal's number, then for the body's end (0); end the process if it stays away."""
    left = None
    while True:
        ready, _, _ = select.select([signals], [], [], left)
        if not ready:
            break
        for number in os.read(signals, 64):
            if not number:
                return
            if number == signal.SIGINT and _own.is_set():
                _own.clear()
            elif number in STOPS and not came:
                came.append(number)
                end = time.monotonic() + LEAVE_SECONDS
        left = max(0.0, end - time.monotonic()) if came else None
    _release_terminal()
    if not _said.is_set():
        say_stopped()
    _end_all(None, LAST_SECONDS)
    _end(128 + came[0])


def _release_terminal() -> None:
    if held_terminal:
        os.dup2(held_terminal[0], 2)


def _end_all(why: BaseException | None, seconds: float) -> None:
    """Ray's processes, then what is `at_the_end`."""

    def last() -> None:
        for each in [*at_the_end]:
            with suppress(Exception):
                each(why)

    _end_ray()
    thread = threading.Thread(target=last, daemon=True)  # a storage may not answer
    thread.start()
    thread.join(seconds)


def _end_ray() -> None:
    """A local Ray's daemons and workers; of a cluster's Ray this process has no children."""
    if "psutil" not in sys.modules:  # imported by the session, before any Ray
        return
    from raysynth.cluster.note import alive, children

    for pair in children():  # parents first: none starts a child anew
        with suppress(Exception):  # gone by itself
            if (process := alive(pair)) is not None:
                process.kill()


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a pipe that nobody reads any more
            if stream.isatty():
                stream.write(SHOW_CURSOR)  # which a display that is drawn over hides
            stream.flush()
    os._exit(code)
