"""Stages that begin before their turn, beside those before them, where cores would idle.

Starting processes, clustering and the ends of stages keep one core busy of several
(docs/notebook/2026-11-29-quickstart-speed.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType

from raysynth.progress import Beside, Progress
from raysynth.stages.stage import Done

GRACE_SECONDS = 1.0
"""For stages to hear that a run was stopped. Who pressed Ctrl-C waits no longer: what is not done
is gone on with, as after a kill."""
FAULT_SECONDS = 60.0
"""The same after a fault, where the run may begin again at once."""


class Ahead:
    """Stages in threads of their own; as a context manager it leaves none at work behind it."""

    def __init__(self, progress: Progress) -> None:
        """`progress`: the display that theirs stand beside."""
        self._progress = progress
        self._running: dict[str, tuple[Future[Done], threading.Thread, Beside]] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Without an error all have been taken; with one they are told to end."""
        for _, _, display in self._running.values():
            display.end()
        for result, _, _ in self._running.values():  # a signal may have come before a thread began
            wait([result], FAULT_SECONDS if isinstance(error, Exception) else GRACE_SECONDS)

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def begin(self, name: str, make: Callable[[Progress], Done]) -> None:
        """Make a stage in a thread; `make` is given its display."""
        result: Future[Done] = Future()
        display = self._progress.beside()

        def work() -> None:
            try:
                result.set_result(make(display))
            except BaseException as error:  # the run raises it, see `check` and `take`
                result.set_exception(error)
            finally:
                display.end()

        # A daemon: a process that leaves waits for no stage.
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._running[name] = result, thread, display
        thread.start()

    def check(self) -> None:
        """Raise what a stage raised that has ended; nobody may ask for its outputs for long."""
        for result, _, _ in self._running.values():
            if result.done():
                result.result()

    def take(self, name: str) -> Done:
        """The outputs of a stage that has begun, once they are there; raises what it raised."""
        result, thread, _ = self._running[name]
        if not result.done():
            self._progress.stage("waiting")
            self._progress.update(f"for {name}")
        done = result.result()
        thread.join()
        del self._running[name]
        return done
