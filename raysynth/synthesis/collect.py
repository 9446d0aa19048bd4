"""While images are drawn: count what is safe on disk, and turn it into final shards."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable
from types import TracebackType

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raysynth.cluster.workers import TASK_CPUS
from raysynth.errors import RaysynthError, StorageError, reason_of
from raysynth.groups.groups import Groups
from raysynth.metrics import IMAGES_GENERATED, add
from raysynth.progress import Progress
from raysynth.storage.files import open_storage, sizes_below
from raysynth.synthesis.blocks import FOLDER, Block, blocks_among
from raysynth.synthesis.shards import Shard, ShardRecord, existing_records, write_shard
from raysynth.synthesis.timeline import SPAN, thinned

POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0  # after errors
NOWHERE = -1
WRITERS_PER_CPU = 0.25  # shards written at the same time; a local Ray's CPUs are logical
MOST_SPANS = 200_000
LOADING = "loading models, first batches"
"""What goes on before the first images are safe: minutes, where a network is large or compiled."""
MOST_GROUPS = 50
"""Groups that are told one by one."""


class Collector:
    """Is told of blocks, and writes shards in a thread of the driver, from `with` to its end.

    A block is on disk before it is told of, or found here, so what is drawn is never counted before
    it is safe. A block file goes as soon as every shard that needs it is written. Kept in memory
    are a record for each shard and, of the shards that are being filled, four bytes per row: of no
    more than are drawn at a time, as rows are drawn in their order (`edit` draws those of one file
    of real images after the other, and fills all shards at once).
    """

    def __init__(self, work: str, shards: list[Shard], groups: Groups, progress: Progress) -> None:
        """Look at what an earlier attempt left; shards that are complete are not written again."""
        self.work, self.shards, self.groups, self.progress = work, shards, groups, progress
        self.filesystem, self._root = open_storage(work)
        self.total = sum(shard.count for shard in shards)
        self.done = 0
        self._starts = np.array([shard.start for shard in shards], np.int64)
        self._filling: dict[int, NDArray[np.int32]] = {}  # shard -> block of each of its rows
        self._of = np.array([shard.group for shard in shards], np.int64)
        self._counts = np.array([shard.count for shard in shards], np.int64)
        self._missing = self._counts.copy()
        self._blocks: dict[int, str] = {}  # those on disk
        self._files: set[str] = set()  # of them
        self._needed: dict[int, int] = {}  # block -> unwritten shards that have rows of it
        self._count = 0
        self._told: queue.SimpleQueue[tuple[Block, pa.Table]] = queue.SimpleQueue()
        self._spans = [SPAN.empty_table()]
        sizes = sizes_below(work)
        found = existing_records(work, shards, sizes)
        self.records: list[ShardRecord] = list(found.values())
        self._unwritten = set(range(len(shards))) - found.keys()
        for number in found:
            self._missing[number] = 0
            self.done += shards[number].count
        names = [file for file in sizes if file.startswith(f"{FOLDER}/")]
        for block in blocks_among((name.partition("/")[2] for name in names), work):
            self._take_in(block)
        self._writing: dict[ray.ObjectRef, int] = {}
        self._write = ray.remote(
            num_cpus=TASK_CPUS, max_retries=3, retry_exceptions=[OSError, StorageError]
        )(write_shard)
        self._began = self.done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @property
    def waiting(self) -> list[Shard]:
        """Shards that lack rows."""
        return [self.shards[n] for n in sorted(self._unwritten) if self._missing[n]]

    @property
    def missing(self) -> NDArray[np.int64]:
        """[R, 2] the ranges of rows that are neither in a shard nor in a block."""
        found: list[list[int]] = []
        for number in sorted(self._unwritten):
            shard = self.shards[number]
            for start, stop in self._lacks(number):
                if found and found[-1][1] == shard.start + start:
                    found[-1][1] = shard.start + stop
                else:
                    found.append([shard.start + start, shard.start + stop])
        return np.array(found, np.int64).reshape(-1, 2)

    @property
    def timeline(self) -> pa.Table:
        """The spans of all blocks that were told of, by start."""
        return pa.concat_tables(self._spans).sort_by("start")

    def __enter__(self) -> Collector:
        self._say()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def take(self, block: Block, spans: pa.Table) -> None:
        """A block was written; `spans`: of the actors' time, a timeline's rows."""
        self._told.put((block, spans))

    def finish(self) -> list[ShardRecord]:
        """Write what is left and wait for it; raises what keeps a shard from being written now."""
        self.step()
        while self._writing:
            self._gather(timeout=None)
            self._write_some()
        return self.records

    def step(self) -> None:
        """One look: new blocks, shards that became whole, block files that nobody needs."""
        before = self.done
        with contextlib.suppress(queue.Empty):
            while True:
                block, spans = self._told.get_nowait()
                self._spans.append(spans)
                self._take_in(block)
        if len(self._spans) > 1:
            self._spans = [thinned(pa.concat_tables(self._spans).combine_chunks(), MOST_SPANS)]
        add(IMAGES_GENERATED, self.done - before)
        self._tell_groups()
        self._gather(timeout=0)
        self._write_some()
        self._say()

    def _say(self) -> None:
        """How many images there are, and why that does not grow yet."""
        begun = self.done > self._began or self.done >= self.total
        what = "images generated" if begun else f"{LOADING}, images generated"
        self.progress.update(what, self.done, self.total)

    def _tell_groups(self) -> None:
        """How many images of each group are safe."""
        counts = self._counts, self._counts - self._missing
        total, done = (np.bincount(self._of, each, self.groups.count) for each in counts)
        if self.groups.count > MOST_GROUPS:
            whole = f"{int((done == total).sum()):,} of {self.groups.count:,} are whole"
            return self.progress.detail("groups", whole)
        told = (
            f"{n} {d:,.0f}/{t:,.0f}" for n, d, t in zip(self.groups.names, done, total, strict=True)
        )
        self.progress.detail("groups", ", ".join(told))

    def _follow(self) -> None:
        """Look again and again; what goes wrong may go right at the next look, or in `finish`."""
        pause, said = POLL_SECONDS, ""
        while not self._stop.wait(pause):
            try:
                self.step()
                pause = POLL_SECONDS
            except Exception as error:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                if (reason := reason_of(error)) != said:
                    self.progress.say(f"  a shard waits, and is tried again: {reason}")
                said = reason

    def _lacks(self, number: int) -> NDArray[np.int64]:
        """[R, 2] the ranges that a shard lacks, counted from its first row."""
        if number not in self._filling:
            return np.array([[0, self.shards[number].count]])
        lacks = np.append(np.append(False, self._filling[number] == NOWHERE), False)
        return np.flatnonzero(np.diff(lacks)).reshape(-1, 2)

    def _take_in(self, block: Block) -> None:
        """Trust a block for the rows that no other block has."""
        if block.file in self._files:  # written a second time, by a task that was tried again
            return
        mine, self._count = self._count, self._count + 1
        needed = sum(self._fill(mine, start, stop) for start, stop in block.ranges.tolist())
        self._blocks[mine], self._needed[mine] = block.file, needed
        self._files.add(block.file)
        self._drop_unneeded([mine])

    def _fill(self, block: int, start: int, stop: int) -> int:
        """Note where a range of rows lies; returns how many shards need the block for the first
        time."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        needed = 0
        for number in range(first, len(self.shards)):
            shard = self.shards[number]
            if shard.start >= stop:
                break
            if number not in self._unwritten:
                continue
            if number not in self._filling:
                self._filling[number] = np.full(shard.count, NOWHERE, np.int32)
            rows = self._filling[number]
            known = bool((rows == block).any())
            part = rows[max(start - shard.start, 0) : stop - shard.start]
            new = part == NOWHERE
            part[new] = block
            added = int(new.sum())
            self._missing[number] -= added
            self.done += added
            needed += bool(added) and not known
        return needed

    def _write_some(self) -> None:
        """Start to write shards that are whole: `WRITERS_PER_CPU`, at least two.

        Each is a process that holds its shard's images, and the last images make many shards whole
        at once.
        """
        cpus = ray.cluster_resources().get("CPU", 0)  # now: a cluster may have grown
        at_once = max(2, int(cpus * WRITERS_PER_CPU))
        for number in sorted(self._filling.keys() - set(self._writing.values())):
            if len(self._writing) >= at_once:
                return
            if not self._missing[number]:
                self._submit(number)

    def _submit(self, number: int) -> None:
        shard, block_of = self.shards[number], self._filling[number]
        blocks = {
            f"{self.work}/{FOLDER}/{self._blocks[block]}": shard.start
            + np.flatnonzero(block_of == block)
            for block in np.unique(block_of).tolist()
        }
        reference = self._write.remote(self.work, shard, blocks, self.groups)
        self._writing[reference] = number

    def _gather(self, timeout: float | None) -> None:
        """Take in the shards that have been written; without a timeout, at least one."""
        if not self._writing:
            return
        pending = list(self._writing)
        count = 1 if timeout is None else len(pending)
        written, _ = ray.wait(pending, num_returns=count, timeout=timeout)
        for reference in written:
            number = self._writing.pop(reference)  # if it failed, it is written again
            try:
                record = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, RaysynthError) else error from None
            self.records.append(record)
            self._unwritten.discard(number)
            blocks = np.unique(self._filling.pop(number)).tolist()
            for block in blocks:
                self._needed[block] -= 1
            self._drop_unneeded(blocks)

    def _drop_unneeded(self, blocks: Iterable[int]) -> None:
        """Delete block files without a row that a shard still waits for: no image lies twice."""
        for block in blocks:
            if not self._needed[block]:
                with contextlib.suppress(FileNotFoundError):
                    self.filesystem.rm_file(f"{self._root}/{FOLDER}/{self._blocks[block]}")
                self._files.discard(self._blocks.pop(block))
                del self._needed[block]
