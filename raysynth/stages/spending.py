"""What stages take besides time, sampled while they run: memory, a GPU's memory, energy.

Of this machine alone: workers of a cluster's other machines are not seen. Stages that run beside
each other share what is used: each has the peak of all processes, and an equal part of the energy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from raysynth.gauges import Gauges, Reading

EVERY = 1.0
"""Seconds between two samples, at least."""
SHARE = 0.005
"""Of a core that sampling may take: reading twenty processes' memory costs milliseconds."""


@dataclass
class Spent:
    """What a stage took; None: it cannot be read here, or was not looked at."""

    memory: float | None = None
    """Bytes, the peak of the driver and all processes below it."""
    gpu_memory: float | None = None
    """Bytes in use of the fullest GPU, the peak; other programs' included."""
    joules: float | None = None
    """Of processors and GPUs, as far as they count it; other programs' included."""

    @property
    def told(self) -> dict[str, float]:
        """Those that are known."""
        return {name: round(value) for name, value in asdict(self).items() if value is not None}

    def add(self, now: Reading, joules: float | None) -> None:
        """A sample, and the energy since the last one."""
        self.memory = _most(self.memory, now.memory)
        self.gpu_memory = _most(self.gpu_memory, now.gpu_memory)
        if joules is not None:
            self.joules = (self.joules or 0.0) + joules


class Spending:
    """Samples in a thread of its own while a stage is at work."""

    def __init__(self, read: Callable[[], Reading] | None = None) -> None:
        """`read`: what is in use now; None: this machine's gauges."""
        self._read = read or Gauges()
        self._lock = threading.Lock()
        self._at_work: list[Spent] = []
        self._joules: float | None = None
        self._ended = threading.Event()

    @contextlib.contextmanager
    def counting(self, spent: Spent) -> Iterator[None]:
        """Add to `spent` what is used meanwhile."""
        self._sample()
        with self._lock:
            self._at_work.append(spent)
            first = len(self._at_work) == 1
            if first:
                self._ended = threading.Event()
        if first:
            threading.Thread(target=self._follow, args=(self._ended,), daemon=True).start()
        try:
            yield
        finally:
            self._sample()
            with self._lock:
                self._at_work = [each for each in self._at_work if each is not spent]
                if not self._at_work:
                    self._ended.set()

    def _follow(self, ended: threading.Event) -> None:
        pause = EVERY
        while not ended.wait(pause):
            start = time.thread_time()
            self._sample()
            pause = max(EVERY, (time.thread_time() - start) / SHARE)

    def _sample(self) -> None:
        with self._lock:
            now = self._read()
            used = None
            if now.joules is not None and self._joules is not None and self._at_work:
                used = max(now.joules - self._joules, 0.0) / len(self._at_work)
            self._joules = now.joules
            for spent in self._at_work:
                spent.add(now, used)


def _most(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


SPENDING = Spending()
"""This process's."""
