"""What a run has said, from its folder; followed while it is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from raysynth.errors import ConfigError
from raysynth.jobs.heartbeat import STORE_SECONDS
from raysynth.jobs.status import RUNNING, SILENT, read_status
from raysynth.storage.files import open_storage
from raysynth.terminal import masked

LOG = "log.txt"
"""The run's log in its folder."""
LOOK_SECONDS = 1.0


def log_of(root: str) -> str | None:
    """The whole log of a run; None: its folder has none."""
    data = _from(root, 0)
    return None if data is None else data.decode(errors="replace")


def follow_log(root: str, show: Callable[[str], object]) -> None:
    """Hand on what a run writes until it is not at work any more; Ctrl-C leaves it at work.

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
        f"{masked(root)}: no {LOG}. Fix: `raysynth status` says what the run does; the log of a "
        "Ray job: raysynth logs ID"
    )


def _pieces(root: str, pause: float) -> Iterator[bytes]:
    read = 0
    while True:
        at_work = read_status(root).state in (RUNNING, SILENT)  # before: what is said last is shown
        data = _from(root, read)
        if data is None and not at_work:
            raise no_log(root)
        whole = (data or b"").rpartition(b"\n")
        piece = b"".join(whole[:2]) if at_work else data or b""  # no half of a letter
        read += len(piece)
        if piece:
            yield piece
        if not at_work:
            return
        time.sleep(pause)


def _from(root: str, start: int) -> bytes | None:
    """The log's bytes from there on; None: there is no log."""
    storage, name = open_storage(f"{root}/{LOG}")
    storage.invalidate_cache()
    try:
        if start >= storage.size(name):  # an object store refuses a range of nothing
            return b""
        return bytes(storage.cat_file(name, start=start))
    except FileNotFoundError:
        return None
