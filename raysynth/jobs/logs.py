"""What a run has said, from its folder; followed while it is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from raysynth.errors import ConfigError
from raysynth.jobs.heartbeat import STORE_SECONDS
from raysynth.jobs.status import RUNNING, SILENT, read_status
from raysynth.log import FOLDER
from raysynth.storage.files import open_storage
from raysynth.terminal import masked

LOOK_SECONDS = 1.0


def log_of(root: str) -> str | None:
    """The log of a run's last attempt; None: there is none."""
    parts = _parts(root)
    data = [_from(part, 0) for part in _last_attempt(parts)]
    return b"".join(data).decode(errors="replace") if data else None


def follow_log(root: str, show: Callable[[str], object]) -> None:
    """Hand on what a run writes, from its last attempt on, until it is not at work any more.

    Raises
    ------
    ConfigError
        There is no run, or it has no log.
    """
    is_disk = open_storage(root)[0].is_disk
    for data in _pieces(root, LOOK_SECONDS if is_disk else STORE_SECONDS):
        show(data.decode(errors="replace"))


def no_log(root: str) -> ConfigError:
    """A run without a log, of an older version or not yet begun."""
    return ConfigError(
        f"{masked(root)}: no log. Fix: `raysynth status` says what the run does; the log of a Ray "
        "job: raysynth logs ID"
    )


def _pieces(root: str, pause: float) -> Iterator[bytes]:
    """What is new in the parts, whole lines each; ends when the run has."""
    read: dict[str, int] = {}
    first = _last_attempt(_parts(root))[:1]
    while True:
        at_work = read_status(root).state in (RUNNING, SILENT)  # before: what is said last is shown
        parts = [part for part in _parts(root) if not first or part >= first[0]]
        if not parts and not at_work:
            raise no_log(root)
        for part in parts:
            data = _from(part, read.get(part, 0))
            last = at_work and part == parts[-1]
            piece = b"".join(data.rpartition(b"\n")[:2]) if last else data
            read[part] = read.get(part, 0) + len(piece)
            if piece:
                yield piece
        if not at_work:
            return
        time.sleep(pause)


def _parts(root: str) -> list[str]:
    """Paths or URIs of the log's parts, in order."""
    storage, folder = open_storage(f"{root}/{FOLDER}")
    storage.invalidate_cache()
    try:
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in storage.ls(folder, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{root}/{FOLDER}/{name}" for name in sorted(names) if name.endswith(".txt")]


def _last_attempt(parts: Sequence[str]) -> list[str]:
    attempts = [part.rsplit("/", 1)[-1].partition("-")[0] for part in parts]
    return [part for part, own in zip(parts, attempts, strict=True) if own == attempts[-1]]


def _from(part: str, start: int) -> bytes:
    """A part's bytes from there on."""
    storage, name = open_storage(part)
    try:
        if start >= storage.size(name):  # an object store refuses a range of nothing
            return b""
        return bytes(storage.cat_file(name, start=start))
    except FileNotFoundError:  # of an attempt long ago, and gone
        return b""
