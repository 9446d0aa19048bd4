"""A run past any machine at hand: 1,000 adapters, 10 million images, 200 workers that come and go.

    python benchmarks/simulate.py [--quick] [--images N] [--workers N]

An event simulation: time is simulated, and so are the models, Ray and the seconds that storage
takes. What decides is the package's own: packs of adapters (`finetune.packs`), the plan and its
batches (`synthesis.plan`), the shards, their notes and the collector, which works on a file system
in memory whose requests are counted. A worker draws one batch while its next one waits; a batch
whose worker is lost is drawn again by another.

Scenarios: nothing happens; a worker lost every 20 minutes; a tenth of them at once, every hour; the
driver killed at half of the images, its command given again after a minute.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

import fsspec
import numpy as np
import ray
from fsspec.implementations.memory import MemoryFileSystem
from measure import finish, parser
from scale import Peak
from streaming import GROUPS

import raysynth.synthesis.collect as collect
from raysynth.config.files import load_config
from raysynth.finetune.packs import split_into_packs
from raysynth.generators.recipe import recipe_of
from raysynth.progress import Progress
from raysynth.synthesis.blocks import FOLDER, Block, name_of
from raysynth.synthesis.collect import Collector
from raysynth.synthesis.plan import START, STOP, Spoken, batches, group_ranges
from raysynth.synthesis.shards import NOTES, ShardRecord, note_of, plan_shards
from raysynth.synthesis.specs import Asked, Voice
from raysynth.synthesis.timeline import SPAN

ADAPTERS, IMAGES, WORKERS = 1_000, 10_000_000, 200
BATCH, SHARD = 64, 1_000
SECONDS_PER_IMAGE = 0.25  # of a worker's device: 25 steps at 512 pixels
LOAD_SECONDS = 60.0  # a new process: its model
REPLACE_SECONDS = 180.0  # a new machine
SHARD_SECONDS = 3.0  # sixteen blocks read, one shard written
ADAPTER_SECONDS = 600.0  # of the average adapter, alone in its worker
CHECKPOINT_SECONDS = 60.0  # between the checkpoints of a pack
DRIVER_SECONDS = 60.0  # until a driver that was killed is started again
LOOK_SECONDS = 1.0
LIST_NAMES = 1_000  # an object store names no more in one answer
REQUESTS_BAR = 0.3
NO_SPANS = SPAN.empty_table()
ROOT, FOLDERS = "memory://run/synthesis", "/run/synthesis"


class Counted(MemoryFileSystem):
    """A file system in memory that counts what an object store would be asked."""

    asked: ClassVar[Counter[str]] = Counter()
    most = 0

    def pipe_file(self, path: str, value: bytes, **given: Any) -> None:
        self.asked["PUT"] += 1
        super().pipe_file(path, value, **given)
        Counted.most = max(self.most, len(self.store))

    def cat_file(self, path: str, *given: Any, **named: Any) -> bytes:
        self.asked["GET"] += 1
        return super().cat_file(path, *given, **named)

    def rm_file(self, path: str) -> None:
        self.asked["DELETE"] += 1
        super().rm_file(path)

    def find(self, path: str, *given: Any, **named: Any) -> Any:
        found = super().find(path, *given, **named)
        self.asked["LIST"] += -(-max(len(found), 1) // LIST_NAMES)
        return found


fsspec.register_implementation("memory", Counted, clobber=True)


class Clock:
    """As much of Ray as the collector asks for: a shard is written some seconds later."""

    exceptions, ObjectRef = ray.exceptions, ray.ObjectRef

    def __init__(self, workers: int, storage: Counted) -> None:
        self.now, self.workers, self.storage = 0.0, workers, storage

    def remote(self, **_: Any) -> Any:
        return lambda write: self

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0 * self.workers}

    def put(self, file: str, data: bytes) -> None:
        """What `write_atomic` does on an object store, without asking each time which that is."""
        self.storage.pipe_file(f"{FOLDERS}/{file}", data)

    def submit(self, shard: Any, blocks: Any) -> tuple[float, ShardRecord]:
        self.storage.asked["GET"] += len(blocks)
        record = ShardRecord(shard.file, shard.group, shard.count, "0" * 64)
        return self.now + SHARD_SECONDS, record

    def wait(self, pending: list[Any], **given: Any) -> tuple[list[Any], list[Any]]:
        """Those that are written by now; where one is waited for, time passes."""
        if given["timeout"] is None:
            self.now = max(self.now, min(end for end, _ in pending))
        return [one for one in pending if one[0] <= self.now], []

    def get(self, written: tuple[float, ShardRecord]) -> ShardRecord:
        record = written[1]
        self.put(record.file, b"")
        self.put(f"{NOTES}/{record.file}.json", note_of(record, 0))
        return record


class Writing:
    """What the collector's remote function is."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def remote(self, work: str, shard: Any, blocks: Any, groups: Any) -> Any:
        return self.clock.submit(shard, blocks)


@dataclass(frozen=True)
class Work:
    """As much of a fine-tuning's job as packs are made by."""

    work: float


@dataclass
class Told:
    """What a scenario came to."""

    drawn: int = 0
    again: int = 0
    """Images that were drawn in vain."""
    lost: float = 0.0
    """Seconds of workers that were not there, loaded, or drew in vain."""
    losses: int = 0
    lost_to_losses: float = 0.0
    busy: float = 0.0
    wall: float = 0.0
    progress: list[tuple[float, int]] = field(default_factory=list)
    most_blocks: int = 0
    most_filling: int = 0


@dataclass(frozen=True)
class Scenario:
    """How many workers are lost, how often, and whether the driver is killed at half."""

    name: str
    every: float = 0.0
    share: float = 0.0
    """Of the workers; 0: one of them."""
    killed: bool = False


SCENARIOS = (
    Scenario("nothing happens"),
    Scenario("a worker lost every 20 minutes", 1200.0),
    Scenario("a tenth lost at once, every hour", 3600.0, 0.1),
    Scenario("the driver killed at half", killed=True),
)


class Generation:
    """The workers and the driver of one scenario; events are (seconds, number, what, whom)."""

    def __init__(self, plan: Spoken, workers: int, scenario: Scenario) -> None:
        self.plan, self.scenario = plan, scenario
        Counted.store.clear()
        Counted.pseudo_dirs[:] = [""]
        Counted.asked.clear()
        Counted.most = 0
        self.clock = Clock(workers, fsspec.filesystem("memory"))
        collect.ray = self.clock  # type: ignore[attr-defined]
        self.told, self.numbers, self.rng = Told(), count(), np.random.default_rng(0)
        self.workers = workers
        self.lives = [0] * workers  # a batch counts for the life that began it
        self.events: list[tuple[float, int, str, Any]] = []
        self.drawing: dict[int, tuple[tuple[int, int], float]] = {}
        self.idle: list[tuple[int, int]] = []
        self.killed = False
        self.looked: list[float] = []  # real seconds until a driver knew what was missing
        self._begin(0.0)
        if scenario.every:
            self._at(scenario.every, "loss", None)

    def _at(self, when: float, what: str, whom: Any) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what, whom))

    def _begin(self, now: float) -> None:
        """A driver starts, or starts again: what is missing becomes batches."""
        self.clock.now, began = now, time.perf_counter()
        shards = plan_shards(group_ranges(self.plan), SHARD)
        self.collector = Collector(ROOT, shards, GROUPS, Progress())
        self.collector._write = Writing(self.clock)
        asked = batches(self.collector.missing, BATCH)
        self.looked.append(time.perf_counter() - began)
        self.queue = deque(zip(asked[START].to_pylist(), asked[STOP].to_pylist(), strict=True))
        for worker in range(self.workers):
            self.lives[worker] += 1
            self.told.lost += LOAD_SECONDS
            self._at(now + LOAD_SECONDS, "free", (worker, self.lives[worker]))
        self._at(now, "look", self.collector)

    def run(self) -> Told:
        """All events until every image is in a shard."""
        handlers = {"free": self._free, "drawn": self._drawn, "loss": self._loss}
        while self.collector.done < self.collector.total or self.collector._writing:
            now, _, what, whom = heapq.heappop(self.events)
            self.clock.now = now
            if what == "look":
                self._look(whom)
            elif what == "again":
                self._begin(now)
            else:
                handlers[what](now, whom)
            half = self.collector.done >= self.collector.total / 2
            if self.scenario.killed and half and not self.killed:
                self._kill(now)
        self.collector.finish()
        self.told.wall = self.clock.now
        return self.told

    def _look(self, collector: Collector) -> None:
        if collector is not self.collector:
            return  # of a driver that is gone
        collector.step()
        told = self.told
        told.most_blocks = max(told.most_blocks, len(collector._blocks))
        told.most_filling = max(told.most_filling, len(collector._filling))
        told.progress.append((self.clock.now, collector.done))
        self._at(self.clock.now + LOOK_SECONDS, "look", collector)

    def _free(self, now: float, whom: tuple[int, int]) -> None:
        worker, life = whom
        if life != self.lives[worker]:
            return
        if not self.queue:
            self.idle.append(whom)
            return
        batch = self.queue.popleft()
        self.drawing[worker] = (batch, now)
        self._at(now + SECONDS_PER_IMAGE * (batch[1] - batch[0]), "drawn", whom)

    def _drawn(self, now: float, whom: tuple[int, int]) -> None:
        worker, life = whom
        if life != self.lives[worker]:
            return
        batch, began = self.drawing.pop(worker)
        ranges = np.array([batch])
        block = Block(name_of(ranges), ranges)
        self.clock.put(f"{FOLDER}/{block.file}", b"")
        self.collector.take(block, NO_SPANS)
        self.told.drawn += batch[1] - batch[0]
        self.told.busy += now - began
        self._free(now, whom)

    def _loss(self, now: float, _: Any) -> None:
        """Spot machines are taken: others come later, and their batches are drawn by those left."""
        many, before = max(1, round(self.scenario.share * self.workers)), self.told.lost
        for worker in self.rng.choice(self.workers, many, replace=False).tolist():
            self._leave(worker, now)
            absent = REPLACE_SECONDS + LOAD_SECONDS
            self.told.lost += absent
            self._at(now + absent, "free", (worker, self.lives[worker]))
        self.told.losses += many
        self.told.lost_to_losses += self.told.lost - before
        self._at(now + self.scenario.every, "loss", None)

    def _leave(self, worker: int, now: float) -> None:
        self.lives[worker] += 1
        if worker not in self.drawing:
            return
        batch, began = self.drawing.pop(worker)
        self.told.again += batch[1] - batch[0]
        self.told.lost += now - began
        self.queue.appendleft(batch)
        while self.idle:
            if (other := self.idle.pop())[1] == self.lives[other[0]]:
                self._free(now, other)
                return

    def _kill(self, now: float) -> None:
        """The driver and its workers are gone; what is on disk stays."""
        self.killed = True
        for worker in range(self.workers):
            self._leave(worker, now)
        self.events.clear()
        self.told.lost += DRIVER_SECONDS * self.workers
        self._at(now + DRIVER_SECONDS, "again", None)


def training_packs(adapters: int, workers: int, every: float) -> dict[str, float]:
    """Fine-tuning: the package's packs, one each worker, with and without a worker lost so often.

    A pack that is lost goes on from its last checkpoint, on another machine.
    """
    rng = np.random.default_rng(0)
    jobs = [Work(float(size)) for size in rng.lognormal(sigma=0.5, size=adapters)]
    packs = split_into_packs(jobs, "auto", workers)  # type: ignore[arg-type]
    scale = ADAPTER_SECONDS / np.mean([job.work for job in jobs])
    ends = np.array([scale * sum(job.work for job in pack) for pack in packs]) + LOAD_SECONDS
    plain, lost, now = float(ends.max()), 0.0, every
    while every and now < ends.max():
        worker = int(rng.integers(len(packs)))
        if ends[worker] > now:
            costs = REPLACE_SECONDS + LOAD_SECONDS + float(rng.uniform(0, CHECKPOINT_SECONDS))
            ends[worker] += costs
            lost += costs
        now += every
    return {
        "packs": len(packs),
        "most_adapters": max(map(len, packs)),
        "hours": round(plain / 3600, 2),
        "hours_with_losses": round(float(ends.max()) / 3600, 2),
        "lost_worker_hours": round(lost / 3600, 2),
    }


def plan_of(images: int, adapters: int) -> Spoken:
    """A plan of as many voices as adapters, divided among four groups."""
    config = load_config(None, ["storage_path=/nowhere", "generator=vanilla"])
    each, rest = divmod(images, adapters)
    voices = tuple(
        (Voice(group, place, f"{group}-{place}", "a photo of a coat", ""), each + (n < rest))
        for n, (group, place) in enumerate(
            (group, place)
            for group in range(GROUPS.count)
            for place in range(adapters // GROUPS.count)
        )
    )
    return Spoken(Asked.of(config, recipe_of(config)), GROUPS, voices)


def simulated(scenario: Scenario, images: int, adapters: int, workers: int) -> dict[str, Any]:
    """A scenario's numbers."""
    print(scenario.name, file=sys.stderr)
    peak, start = Peak(), time.process_time()
    generation = Generation(plan_of(images, adapters), workers, scenario)
    told = generation.run()
    assert generation.collector.done == images and not generation.collector.waiting
    files = {record.file for record in generation.collector.records}
    assert sum(record.rows for record in generation.collector.records) == images
    assert len(files) == len(generation.collector.records), "no shard is written twice"
    asked = Counted.asked
    slots = workers * told.wall
    return {
        "hours": round(told.wall / 3600, 3),
        "utilisation": round(told.busy / slots, 4),
        "lost_worker_hours": round(told.lost / 3600, 2),
        "losses": told.losses,
        "seconds_lost_to_each_loss": round(told.lost_to_losses / max(told.losses, 1), 1),
        "images_drawn_again": told.again,
        "requests_per_image": round(sum(asked.values()) / images, 4),
        **{f"{kind.lower()}_requests": asked[kind] for kind in ("PUT", "GET", "DELETE", "LIST")},
        "most_objects": Counted.most,
        "shards": len(files),
        "most_blocks_in_driver": told.most_blocks,
        "most_shards_being_filled": told.most_filling,
        "seconds_until_a_driver_knows_what_is_missing": round(max(generation.looked), 2),
        "driver_cpu_seconds": round(time.process_time() - start, 1),
        **peak.told(),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--images", type=int, default=0)
    options.add_argument("--workers", type=int, default=WORKERS)
    options.add_argument("--adapters", type=int, default=ADAPTERS)
    options.add_argument("--only", default="", help="scenarios with these words in their name")
    arguments = options.parse_args()
    images = arguments.images or (100_000 if arguments.quick else IMAGES)
    size = (images, arguments.adapters, arguments.workers)
    chosen = [each for each in SCENARIOS if arguments.only in each.name]
    found = {each.name: simulated(each, *size) for each in chosen}
    numbers = {
        "images": images,
        "adapters": arguments.adapters,
        "workers": arguments.workers,
        "fine-tuning": training_packs(arguments.adapters, arguments.workers, SCENARIOS[1].every),
        "generation": found,
    }
    finish("simulate", numbers, _bars(found), arguments.quick)


def _bars(found: dict[str, Any]) -> dict[str, bool]:
    """What is judged, of the scenarios that were simulated."""
    most = max(numbers["requests_per_image"] for numbers in found.values())
    each = max(numbers["seconds_lost_to_each_loss"] for numbers in found.values())
    bar = REPLACE_SECONDS + LOAD_SECONDS + SECONDS_PER_IMAGE * BATCH
    return {
        f"requests per image <= {REQUESTS_BAR}": most <= REQUESTS_BAR,
        f"a lost worker costs its absence and one batch, {bar:.0f} s": each <= bar,
    }


if __name__ == "__main__":
    main()
