"""The trackers of a run as one, which never fails: one that does is said once, and left."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from raysynth.registry import Chosen
from raysynth.storage.files import open_storage
from raysynth.terminal import clipped
from raysynth.trackers.tracker import TRACKERS, Tracker

Say = Callable[[str], None]
FOLDER = "trackers"
"""Below a run's; of a run that is stored elsewhere, in the working directory."""


def to_stderr(text: str) -> None:
    """Where messages go unless somebody shows them better."""
    print(text, file=sys.stderr, flush=True)


class Trackers:
    """Tells every tracker the same; has a tracker's methods."""

    def __init__(self, opened: Mapping[str, Tracker], say: Say = to_stderr) -> None:
        """`opened`: what messages call a tracker -> the tracker."""
        self._opened, self._say = dict(opened), say
        self._telling = threading.Lock()  # two stages may be at work

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.metrics`."""
        self._tell(lambda tracker: tracker.metrics(stage, step, values))

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """See `Tracker.record`."""
        self._tell(lambda tracker: tracker.record(stage, facts))

    def close(self) -> None:
        """See `Tracker.close`."""
        self._tell(lambda tracker: tracker.close())
        self._opened.clear()

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        with self._telling:
            for name, tracker in list(self._opened.items()):
                try:
                    call(tracker)
                except Exception as error:  # of another package: whatever it likes
                    del self._opened[name]
                    self._say(_left(name, error))


@contextmanager
def open_trackers(
    chosen: Sequence[Chosen],
    folder: str,
    name: str,
    config: Mapping[str, Any] | None = None,
    say: Say = to_stderr,
) -> Iterator[Trackers]:
    """The trackers of a run, closed at the end; without any, nothing is imported or made.

    Parameters
    ----------
    chosen : the knob `trackers`.
    folder, name : the run's folder or URI, and its name.
    config : its configuration, JSON-able.
    say : is told of trackers that fail, and where files are of a run that is stored elsewhere.
    """
    opened: dict[str, Tracker] = {}
    local = _local_folder(folder, name, say) if chosen else ""
    for number, each in enumerate(chosen):
        called = each.name if each.name not in opened else f"{each.name} ({number + 1})"
        try:
            own = f"{local}/{called.replace(' ', '-')}"
            knobs = each.knobs(TRACKERS)
            opened[called] = TRACKERS[each.name].open(own, name, config or {}, knobs)
        except Exception as error:
            say(_left(called, error))
    trackers = Trackers(opened, say)
    try:
        yield trackers
    finally:
        trackers.close()


def _local_folder(folder: str, name: str, say: Say) -> str:
    """Where trackers may write: event files grow, and object stores take whole files only."""
    storage, path = open_storage(folder)
    if storage.is_disk:
        return f"{path}/{FOLDER}"
    local = os.path.abspath(f"{FOLDER}/{name}")
    say(f"trackers: {clipped(folder)} is no disk; files of this run's trackers are in {local}")
    return local


def _left(name: str, error: Exception) -> str:
    reason = clipped(f"{type(error).__name__}: {error}")
    return f"trackers: {name} failed ({reason}); the run goes on without it"
