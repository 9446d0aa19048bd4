"""The cells of a benchmark as its status has them: counts, those at work, those that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from raysynth.errors import DataError
from raysynth.pace import duration
from raysynth.stages.record import MANIFEST, SHARED
from raysynth.storage.files import open_storage, read_json

CELLS = "cells"
"""Key of the status file: total, done, at_work, waiting, failed, left."""
RUNS = "runs"
"""Folder of the cells' runs, below the benchmark's."""


def cells_below(root: str, patience: float) -> list[str]:
    """Names of the cells below a benchmark's folder: runs that keep their stages elsewhere."""
    storage, path = open_storage(f"{root}/{RUNS}", patience)
    if not storage.exists(path):
        return []
    found = sorted(str(each).rstrip("/").rpartition("/")[2] for each in storage.ls(path, False))
    return [name for name in found if _shares(f"{root}/{RUNS}/{name}", patience)]


def _shares(run: str, patience: float) -> bool:
    try:
        manifest = read_json(f"{run}/{MANIFEST}", patience)
    except DataError:
        return False
    return isinstance(manifest, dict) and bool(manifest.get(SHARED))


def counted(cells: Mapping[str, Any], *, at_work: bool) -> str:
    """`5 of 12 done (42 %), 1 at work, 5 to come, 1 failed; about 40 min left`.

    `at_work`: the benchmark is; else its cells have ended with it.
    """
    running, waiting = len(cells.get("at_work") or ()), int(cells.get("waiting") or 0)
    failed, total = len(cells.get("failed") or ()), int(cells.get("total") or 0)
    done = int(cells.get("done") or 0)
    parts = [f"{done} of {total} done ({100 * done / total:.0f} %)"] if total else []
    if at_work:
        parts += [f"{running} at work"] if running else []
    else:
        waiting += running
    parts += [f"{waiting} to come"] if waiting else []
    parts += [f"{failed} failed"] if failed else []
    left = cells.get("left") if at_work else None
    return ", ".join(parts) + (f"; about {duration(left)} left" if left else "")


def states(found: Mapping[str, str]) -> str:
    """`3 finished, 1 failed`, of cell -> state, where nothing says how many there will be."""
    counts = Counter(found.values())
    told = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    return f"{told}; how many are to come is not known"


def failures(cells: Mapping[str, Any]) -> list[str]:
    """A line for each failed cell; the further lines of a reason are indented."""
    failed = cells.get("failed")
    return [
        f"failed    {name}: {reason}".replace("\n", "\n          ")
        for name, reason in (failed.items() if isinstance(failed, dict) else ())
    ]
