"""Steps of adapters that are done: what earlier attempts kept, and what workers say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from raysynth.adapters.record import CHECKPOINT, RECORD
from raysynth.errors import StorageError
from raysynth.finetune.experts import expanded
from raysynth.finetune.jobs import Job
from raysynth.finetune.settings import FinetuneConfig
from raysynth.storage.files import open_storage, sizes_below

LONGEST_HEADER = 1 << 20
READERS = 16
"""Headers that are read at once."""


class Reached:
    """The steps of all trainings of a stage, those of experts among them."""

    def __init__(
        self, jobs: Sequence[Job], todo: Sequence[Job], settings: FinetuneConfig, work: str
    ) -> None:
        """Look at what lies in `work`; a storage that is away tells nothing, and workers will.

        `todo`: those of `jobs` that are not complete.
        """
        self._adapters = f"{len(jobs)} adapters"
        self.doing: dict[str, str] = {}
        """Of packs that have spoken: what keeps their steps waiting; "": nothing."""
        self.losses: dict[str, tuple[int, float]] = {}
        """Of adapters: step, and the mean loss of the last steps before it."""
        self.previews: dict[str, int] = {}
        """Of adapters: the step of the last preview."""
        self.failed: set[str] = set()
        """Adapters that failed."""
        self._lengths = {job.name: job.steps for job in expanded(todo, settings)}
        self._there = len(jobs) - len(todo)
        """What is counted, for people."""
        self.total = sum(job.steps for job in jobs)
        """Steps of all trainings."""
        self._complete = self.total - sum(job.steps for job in todo)
        self._steps: dict[str, int] = {}
        with contextlib.suppress(StorageError):
            self._steps = kept_steps(expanded(todo, settings), work)

    @property
    def done(self) -> int:
        """Steps that are taken."""
        return self._complete + sum(self._steps.values())

    def take_in(self, said: Mapping[str, int]) -> None:
        """What a worker has said: adapter -> steps."""
        self._steps |= said

    @property
    def what(self) -> str:
        """What is counted; while all who have spoken wait for something, that before it."""
        waiting = [doing for doing in self.doing.values() if doing]
        if self.doing and len(waiting) == len(self.doing):
            return f"{self._adapters}, {waiting[0]}, steps"
        return f"{self._adapters}, steps"

    @property
    def adapters(self) -> str:
        """`3 done, 2 training, 1 failed, 4 to come; loss 0.0412, highest 0.11 (3-0)`."""
        steps = {n: s for n, s in self._steps.items() if n not in self.failed}
        done = {name for name, step in steps.items() if step >= self._lengths.get(name, step)}
        training = [name for name, step in steps.items() if step and name not in done]
        left = len(self._lengths) - len(done) - len(training) - len(self.failed)
        counts = {
            "done": self._there + len(done),
            "training": len(training),
            "failed": len(self.failed),
            "to come": left,
        }
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        losses = {name: self.losses[name][1] for name in training if name in self.losses}
        if losses:
            mean, highest = sum(losses.values()) / len(losses), max(losses, key=losses.__getitem__)
            text += f"; loss {mean:.4f}, highest {losses[highest]:.4f} ({highest})"
        return text


def kept_steps(jobs: Sequence[Job], work: str) -> dict[str, int]:
    """Adapter -> steps that are safe in its folder below `work`; one listing, and small reads."""
    there = sizes_below(work) if jobs else {}
    complete = {job.name: job.steps for job in jobs if f"{job.name}/{RECORD}" in there}
    begun = [job.name for job in jobs if f"{job.name}/{CHECKPOINT}" in there]
    begun = [name for name in begun if name not in complete]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: checkpoint_step(f"{work}/{name}"), begun)
        return complete | dict(zip(begun, found, strict=True))


def checkpoint_step(folder: str) -> int:
    """The step of an adapter's checkpoint, from its header alone; 0: it cannot be read."""
    storage, path = open_storage(f"{folder}/{CHECKPOINT}")
    try:
        length = int.from_bytes(storage.cat_file(path, start=0, end=8), "little")
        header = json.loads(storage.cat_file(path, start=8, end=8 + min(length, LONGEST_HEADER)))
        return int(header["__metadata__"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
