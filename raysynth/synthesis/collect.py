"""While Ray Data writes: count what is safe on disk, and turn it into final shards."""

from __future__ import annotations

import threading
from types import TracebackType

import fsspec
import pyarrow.parquet as pq
import ray

from raysynth.clustering.pool import TASK_CPUS
from raysynth.groups import Groups
from raysynth.progress import Progress
from raysynth.synthesis.shards import Shard, ShardRecord, existing_record, write_shard

POLL_SECONDS = 1.0
PENDING = ".pending.parquet"  # Ray Data's suffix while a block is being written


class Collector:
    """Follows the checkpoint's folder in a thread of the driver, from `with` to its end.

    Ray Data commits a block in two phases: a pending list of ids, the data file, then the list's
    final name. Only blocks with a committed list are believed; a torn file never has one.
    """

    def __init__(self, work: str, shards: list[Shard], groups: Groups, progress: Progress) -> None:
        """Look at what an earlier attempt left; shards that are complete are not written again."""
        self.work, self.groups, self.progress = work, groups, progress
        self.filesystem, self._root = fsspec.core.url_to_fs(work)
        self.total = sum(len(shard.ids) for shard in shards)
        self.block_of: dict[str, str] = {}
        self.records: list[ShardRecord] = []
        self.waiting: list[Shard] = []
        for shard in shards:
            record = existing_record(work, shard)
            self.records += [record] if record else []
            self.waiting += [] if record else [shard]
        self._seen: set[str] = set()
        self._writing: list[ray.ObjectRef] = []
        self._write = ray.remote(num_cpus=TASK_CPUS, max_retries=3)(write_shard)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._read_checkpoint()

    @property
    def done(self) -> int:
        """Images that are safe on disk."""
        return len(self.block_of)

    def __enter__(self) -> Collector:
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
        if kind is None and self._error is not None:
            raise self._error

    def finish(self) -> list[ShardRecord]:
        """Write what is left and wait for it; all rows must be on disk."""
        self.step()
        self.records += ray.get(self._writing)
        self._writing = []
        return self.records

    def step(self) -> None:
        """One look: new blocks, shards that became whole, progress."""
        self._read_checkpoint()
        ready = [s for s in self.waiting if all(name in self.block_of for name in s.ids)]
        for shard in ready:
            blocks = {name: self.block_of[name] for name in shard.ids}
            self._writing.append(self._write.remote(self.work, shard, blocks, self.groups))
            self.waiting.remove(shard)
        if self._writing:
            written, self._writing = ray.wait(
                self._writing, num_returns=len(self._writing), timeout=0
            )
            self.records += ray.get(written)
        self.progress.update("images generated", self.done, self.total)

    def _follow(self) -> None:
        try:
            while not self._stop.wait(POLL_SECONDS):
                self.step()
        except Exception as error:
            self._error = error

    def _read_checkpoint(self) -> None:
        folder = f"{self._root}/checkpoint"
        if not self.filesystem.exists(folder):
            return
        self.filesystem.invalidate_cache(folder)
        for path in sorted(self.filesystem.ls(folder, detail=False)):
            if path in self._seen or path.endswith(PENDING) or not path.endswith(".parquet"):
                continue
            self._seen.add(path)
            with self.filesystem.open(path, "rb") as file:
                ids = pq.read_table(file, columns=["id"])["id"].to_pylist()
            stem = path.rsplit("/", 1)[-1].removesuffix(".parquet")
            for name in ids:
                self.block_of.setdefault(name, f"{self.work}/blocks/{stem}-0.parquet")
