"""Waiting for an audit's tasks, which say in small files how far they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

POLL_SECONDS = 1.0


def until_done(tasks: Sequence[Any], look: Callable[[], None]) -> list[Any]:
    """What Ray tasks return; `look` is called now and then until all are done.

    Where this is cut off, as by Ctrl-C below a notebook, so are they.
    """
    waiting, ended = list(tasks), False
    try:
        while waiting:
            look()
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
        ended = True
        look()
        found: list[Any] = ray.get(list(tasks))
        return found
    finally:
        for task in () if ended else waiting:
            ray.cancel(task, force=True)
