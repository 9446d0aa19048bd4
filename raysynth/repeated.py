"""Something that is done now and then beside something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def repeated(
    do: Callable[[], object], seconds: float, name: str, patience: float
) -> Iterator[None]:
    """While the body runs, `do` is called every so many seconds, in a thread of this name.

    What it raises is left to the next time. `patience`: seconds that the end waits for a call that
    is at work.
    """
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            with suppress(Exception):
                do()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience)
