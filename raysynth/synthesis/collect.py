"""While Ray Data writes: count what is safe on disk, and turn it into final shards."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import pyarrow as pa
import ray

from raysynth.cluster.workers import TASK_CPUS
from raysynth.errors import RaysynthError, StorageError, reason_of
from raysynth.groups.groups import Groups
from raysynth.metrics import IMAGES_GENERATED, add
from raysynth.progress import Progress
from raysynth.storage.files import open_storage
from raysynth.storage.tables import read_table
from raysynth.synthesis.shards import Shard, ShardRecord, existing_record, write_shard
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import SPAN

POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0  # after errors
POLL_SHARE = 0.05  # of the driver's time at most: an object store lists thousands of names slowly
PENDING = ".pending.parquet"  # Ray Data's suffix while a block is being written
NOWHERE = -1
WRITERS_PER_CPU = 0.25  # shards written at the same time; a local Ray's CPUs are logical


class Collector:
    """Follows the checkpoint's folder in a thread of the driver, from `with` to its end.

    Ray Data commits a block in two phases: a pending list of rows, the data file, then the list's
    final name. Only blocks with a committed list are believed; a torn file never has one. A block
    file goes as soon as every shard that needs it is written. What is kept in memory is a few bytes
    per row of the plan.
    """

    def __init__(self, work: str, shards: list[Shard], groups: Groups, progress: Progress) -> None:
        """Look at what an earlier attempt left; shards that are complete are not written again."""
        self.work, self.shards, self.groups, self.progress = work, shards, groups, progress
        self.filesystem, self._root = open_storage(work)
        self.total = sum(shard.count for shard in shards)
        self.done = 0
        self.records: list[ShardRecord] = []
        self.spans = [SPAN.empty_table()]
        self._starts = np.array([shard.start for shard in shards])
        self._missing = np.array([shard.count for shard in shards])
        self._block_of = np.full(self.total, NOWHERE, np.int32)  # row -> block
        self._blocks: list[str] = []
        self._needed: list[int] = []  # block -> rows of it whose shard is not written
        self._unwritten = set(range(len(shards)))
        for number, shard in enumerate(shards):
            if record := existing_record(work, shard):
                self.records.append(record)
                self._unwritten.discard(number)
        self._seen: set[str] = set()
        self._writing: dict[ray.ObjectRef, int] = {}
        self._write = ray.remote(
            num_cpus=TASK_CPUS, max_retries=3, retry_exceptions=[OSError, StorageError]
        )(write_shard)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._read_checkpoint()

    @property
    def waiting(self) -> list[Shard]:
        """Shards that lack rows."""
        return [self.shards[n] for n in sorted(self._unwritten) if self._missing[n]]

    @property
    def timeline(self) -> pa.Table:
        """The spans of all shards that were written here, by start."""
        return pa.concat_tables(self.spans).sort_by("start")

    def __enter__(self) -> Collector:
        self.progress.update("images generated", self.done, self.total)
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
        self._read_checkpoint()
        add(IMAGES_GENERATED, self.done - before)
        self._gather(timeout=0)
        self._write_some()
        self.progress.update("images generated", self.done, self.total)

    def _follow(self) -> None:
        """Look again and again; what goes wrong may go right at the next look, or in `finish`."""
        pause, said = POLL_SECONDS, ""
        while not self._stop.wait(pause):
            start = time.monotonic()
            try:
                self.step()
                pause = max(POLL_SECONDS, (time.monotonic() - start) / POLL_SHARE)
            except Exception as error:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                if (reason := reason_of(error)) != said:
                    self.progress.say(f"  a shard waits, and is tried again: {reason}")
                said = reason

    def _read_checkpoint(self) -> None:
        folder = f"{self._root}/checkpoint"
        if not self.filesystem.exists(folder):
            return
        self.filesystem.invalidate_cache(folder)
        for path in sorted(set(self.filesystem.ls(folder, detail=False)) - self._seen):
            if path.endswith(PENDING) or not path.endswith(".parquet"):
                continue
            rows = read_table(self.work, [ROW.name], [path])[ROW.name].to_numpy()
            self._seen.add(path)  # not before: what could not be read is read at the next look
            self._take_in(path.rsplit("/", 1)[-1].removesuffix(".parquet"), rows)

    def _take_in(self, stem: str, rows: np.ndarray) -> None:
        """Trust a new block for the rows that no other block has."""
        rows = np.unique(rows[self._block_of[rows] == NOWHERE])
        self._block_of[rows] = len(self._blocks)
        self._blocks.append(stem)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        self._missing -= np.bincount(numbers, minlength=len(self.shards))
        self.done += len(rows)
        self._needed.append(int(np.isin(numbers, list(self._unwritten)).sum()))
        self._drop_unneeded([len(self._blocks) - 1])

    def _write_some(self) -> None:
        """Start to write shards that are whole: `WRITERS_PER_CPU`, at least two.

        Each is a process that holds its shard's images, and the last images make many shards whole
        at once.
        """
        cpus = ray.cluster_resources().get("CPU", 0)  # now: a cluster may have grown
        at_once = max(2, int(cpus * WRITERS_PER_CPU))
        for number in sorted(self._unwritten - set(self._writing.values())):
            if len(self._writing) >= at_once:
                return
            if not self._missing[number]:
                self._submit(number)

    def _submit(self, number: int) -> None:
        shard = self.shards[number]
        rows = np.arange(shard.start, shard.start + shard.count)
        block_of = self._block_of[rows]
        blocks = {
            f"{self.work}/{self._file(block)}": rows[block_of == block]
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
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, RaysynthError) else error from None
            self.records.append(result.record)
            self.spans.append(result.spans)
            self._unwritten.discard(number)
            shard = self.shards[number]
            blocks = self._block_of[shard.start : shard.start + shard.count]
            found, counts = np.unique(blocks, return_counts=True)
            for block, count in zip(found.tolist(), counts.tolist(), strict=True):
                self._needed[block] -= count
            self._drop_unneeded(found.tolist())

    def _drop_unneeded(self, blocks: Sequence[int]) -> None:
        """Delete block files without a row that a shard still waits for: no image lies twice."""
        for block in blocks:
            path = f"{self._root}/{self._file(block)}"
            if not self._needed[block] and self.filesystem.exists(path):
                self.filesystem.rm_file(path)

    def _file(self, block: int) -> str:
        return f"blocks/{self._blocks[block]}-0.parquet"
