"""How fast something goes, and lengths of time in words."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 300.0
"""Of the rate."""


class Pace:
    """How much is done a second, over the last minutes; what was there at first is no work."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, now: float, done: float) -> float | None:
        """The rate with one more look at a count; None: nothing has been done yet."""
        if self._seen and (done < self._seen[-1][1] or done == self._seen[0][1]):
            self._seen.clear()  # another count; or one that has not begun to grow
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
        start, first = self._seen[0]
        seconds = now - start
        return (done - first) / seconds if seconds > 0 and done > first else None


def duration(seconds: float | None) -> str:
    """`7 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
