"""How far a stage is, by what lies in its working folder: no clock decides when harm is done."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tests.chaos.miniature import work_folder


class Follower:
    """Looks at one run's stage again and again; `done` grows with the work.

    Fine-tuning: optimizer steps that workers have reported; search: results of trials; any other
    stage: versions of files that were seen.
    """

    def __init__(self, run: Path, stage: str) -> None:
        self.run, self.stage = run, stage
        self.done = self.most = 0.0
        self._seen: set[tuple[str, int, int]] = set()

    def look(self) -> float:
        """Units of work that are done now; 0 while there is no working folder."""
        work = work_folder(self.run, self.stage)
        if work is None:
            return self.done
        own = {"finetune": _steps, "search": _results}.get(self.stage)
        self.done = own(work) if own else self._versions(work)
        self.most = max(self.most, self.done)
        return self.done

    def _versions(self, work: Path) -> float:
        for path in work.rglob("*"):
            with suppress(OSError):
                about = path.stat()
                self._seen.add((str(path), about.st_size, about.st_mtime_ns))
        return float(len(self._seen))


class WentOn:
    """The seconds from a moment until work is done that was not done then."""

    def __init__(self, follower: Follower, since: float) -> None:
        self._follower, self._since = follower, since
        self._last = self.before = follower.look()
        self.seconds: float | None = None
        self.after = 0.0
        """Units that were done at the first sign of work."""

    def restart(self) -> None:
        """Count from now on: what was under way at the harm has come to its end."""
        self._last = self._follower.look()

    def look(self, now: float) -> None:
        """Take note of the first new work."""
        if self.seconds is not None:
            return
        done = self._follower.look()
        if done not in (0, self._last):  # fine-tuning counts from its last checkpoint again
            self.seconds, self.after = round(now - self._since, 1), done
        self._last = done


def bytes_below(folder: Path) -> int:
    """Bytes that a folder takes on a disk of 4 KiB blocks."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += -(-max(path.lstat().st_size, 1) // 4096) * 4096
    return total


def _steps(work: Path) -> float:
    total = 0
    for path in (work / ".train" / "progress").glob("*.json"):
        with suppress(OSError, ValueError):
            total += sum(json.loads(path.read_text())["steps"].values())
    return float(total)


def _results(work: Path) -> float:
    lines = 0
    for path in work.glob("tune/*/result.json"):
        with suppress(OSError):
            lines += path.read_bytes().count(b"\n")
    return float(lines)
