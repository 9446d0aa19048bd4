"""The trackers of a run as one, which never fails: one that does is said once, and left."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysynth.registry import Chosen
from raysynth.repeated import repeated
from raysynth.storage.files import open_storage, write_atomic
from raysynth.terminal import clipped
from raysynth.trackers.tracker import OPTIONAL, TRACKERS, Tracker

END_SECONDS = 2.0
"""A run that ends waits so long for files that are being sent."""
Say = Callable[[str], None]
FOLDER = "trackers"
"""Below a run's."""
SENT_SECONDS = 60.0
"""Between two times that files of a run on an object store are sent there."""


def to_stderr(text: str) -> None:
    """Where messages go unless somebody shows them better."""
    print(text, file=sys.stderr, flush=True)


class Trackers:
    """Tells every tracker the same; has a tracker's methods."""

    def __init__(self, opened: Mapping[str, Tracker], say: Say = to_stderr) -> None:
        """`opened`: what messages call a tracker -> the tracker."""
        self._opened, self._say = dict(opened), say
        self._telling = threading.Lock()  # two stages may be at work

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.metrics`."""
        self._tell("metrics", of, step, values)

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """See `Tracker.pictures`."""
        self._tell("pictures", of, step, images)

    def tried(self, of: str, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """See `Tracker.tried`."""
        self._tell("tried", of, settings, values)

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """See `Tracker.record`."""
        self._tell("record", stage, facts)

    def artefacts(self, paths: Sequence[str]) -> None:
        """Files or URIs of the run, see `Tracker.artefact`; remote ones are fetched first."""
        if not self._opened:
            return
        with tempfile.TemporaryDirectory(prefix="raysynth-artefacts-") as folder:
            for path in paths:
                name, (storage, inside) = path.rpartition("/")[2], open_storage(path)
                if not storage.exists(inside):
                    continue
                if not storage.is_disk:
                    local = f"{folder}/{name}"
                    storage.get_file(inside, local)
                    inside = local
                self._tell("artefact", name, inside)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._tell("close")
        self._opened.clear()

    def _tell(self, call: str, *given: Any) -> None:
        with self._telling:
            for name, tracker in list(self._opened.items()):
                if call in OPTIONAL and not hasattr(tracker, call):
                    continue
                try:
                    getattr(tracker, call)(*given)
                except Exception as error:  # of another package: whatever it likes
                    del self._opened[name]
                    self._say(_left(name, error))


SILENT = Trackers({})
"""None."""


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
    say : is told of trackers that fail.
    """
    if not chosen:
        yield Trackers({}, say)
        return
    with _local_folder(folder) as local:
        trackers = Trackers(_opened(chosen, local, name, config or {}, say), say)
        try:
            yield trackers
        finally:
            trackers.close()


def _opened(
    chosen: Sequence[Chosen], local: str, name: str, config: Mapping[str, Any], say: Say
) -> dict[str, Tracker]:
    """Those that could be opened, as messages call them."""
    opened: dict[str, Tracker] = {}
    for number, each in enumerate(chosen):
        called = each.name if each.name not in opened else f"{each.name} ({number + 1})"
        try:
            own = f"{local}/{called.replace(' ', '-')}"
            knobs = each.knobs(TRACKERS)
            opened[called] = TRACKERS[each.name].open(own, name, config, knobs)
        except Exception as error:
            say(_left(called, error))
    return opened


@contextmanager
def _local_folder(folder: str) -> Iterator[str]:
    """Where trackers may write: event files grow, and object stores take whole files only.

    What is written is sent to such a store now and then, and at the end.
    """
    storage, path = open_storage(folder)
    if storage.is_disk:
        yield f"{path}/{FOLDER}"
        return
    local = tempfile.mkdtemp(prefix="raysynth-trackers-")
    send = partial(_send, local, f"{folder}/{FOLDER}", dict[str, int]())
    try:
        with repeated(send, SENT_SECONDS, "trackers", END_SECONDS):
            yield local
    finally:
        with contextlib.suppress(Exception):
            send()
        shutil.rmtree(local, ignore_errors=True)


def _send(local: str, target: str, sent: dict[str, int]) -> None:
    """Put the files that have grown; `sent`: the size of each when it was put last."""
    for above, _, names in os.walk(local):
        for name in names:
            path = os.path.join(above, name)
            size, inside = os.path.getsize(path), os.path.relpath(path, local)
            if sent.get(inside) != size:
                with open(path, "rb") as file:
                    write_atomic(f"{target}/{inside}", file.read(), patience=0)
                sent[inside] = size


def _left(name: str, error: Exception) -> str:
    reason = clipped(f"{type(error).__name__}: {error}")
    return f"trackers: {name} failed ({reason}); the run goes on without it"
