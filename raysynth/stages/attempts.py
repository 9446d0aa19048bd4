"""What lies in a stage's working folder beside its outputs: what attempts took, what was made."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raysynth.errors import DataError, StorageError
from raysynth.stages.record import as_json
from raysynth.stages.spending import SPENDING, Spent
from raysynth.storage.files import exists, read_json, write_atomic

SECONDS, FACTS = NOTES = (".seconds", ".facts.json")
"""Files: what attempts took so far (once a number of seconds alone); and, once all outputs are
there, what was made."""


@dataclass
class Taken:
    """What a stage took, over all its attempts."""

    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)

    @property
    def recorded(self) -> dict[str, Any]:
        """As the stage's record has it."""
        return {"seconds": round(self.seconds, 2), "spent": self.spent.told}


@contextlib.contextmanager
def counted(work: str) -> Iterator[Taken]:
    """Count what an attempt takes on top of those before it; kept in `work`, however it ends."""
    taken = taken_before(work)
    before, start = taken.seconds, time.time()
    try:
        with SPENDING.counting(taken.spent):
            yield taken
    finally:
        taken.seconds = before + time.time() - start
        with contextlib.suppress(OSError, StorageError):  # a statistic: it hides no error
            if exists(work):
                told = {"seconds": taken.seconds, "spent": taken.spent.told}
                write_atomic(f"{work}/{SECONDS}", as_json(told), patience=0)


def made_in(work: str) -> dict[str, Any] | None:
    """The facts of a stage whose outputs are all there, but that was not recorded."""
    with contextlib.suppress(DataError):
        made = read_json(f"{work}/{FACTS}")
        return made if isinstance(made, dict) else None
    return None


def taken_before(work: str) -> Taken:
    """What earlier attempts took; unreadable, it is a statistic that starts again."""
    try:
        told = read_json(f"{work}/{SECONDS}") or 0.0
        before = told if isinstance(told, dict) else {"seconds": told}
        seconds = float(before["seconds"])
    except (DataError, KeyError, TypeError, ValueError):
        return Taken()
    if not 0.0 <= seconds < float("inf"):
        return Taken()
    return Taken(seconds, spent_of(before.get("spent")))


def spent_of(told: Any) -> Spent:
    """What a record or an attempt's file says was spent; nothing of what is no number."""
    found = told if isinstance(told, dict) else {}
    names = Spent.__dataclass_fields__
    sound = {
        name: float(value)
        for name, value in found.items()
        if name in names and isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }
    return Spent(**sound)
