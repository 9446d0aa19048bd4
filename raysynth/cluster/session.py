"""Joining a Ray cluster, or starting a local one; what is asked is checked against it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any

from raysynth.cluster.capacity import (
    Demand,
    _ray_runs,
    address_of,
    check_cluster,
    is_local,
    local_cpus,
    logical_cpus,
)
from raysynth.cluster.lease import Lease
from raysynth.cluster.local import guard_token, held_signals, join, start_local
from raysynth.cluster.losses import Losses, heard
from raysynth.cluster.note import SessionNote, children
from raysynth.cluster.own_node import NodeWatch
from raysynth.cluster.stopping import end_for, say_stopped
from raysynth.errors import StorageError
from raysynth.json_lines import to_stderr
from raysynth.metrics import rest
from raysynth.progress import Progress

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # paces ray.train.report: 0.2 s instead of 2 s
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's tables; the search has its own line
    # Ray Data starts this many actors to read the footers of any Parquet data set, 32 unless told
    # otherwise: a run's few files need one (32 took 15 CPU seconds of each reading stage).
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    # Tune's event files have a curve per head and names of 150 characters: trackers have better.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # on Ctrl-C Tune hands over a part of a search as the whole
}


class Session:
    """Ray for one run, started at the first stage that needs it; a context manager.

    A second driver of the same run is refused: on this machine by the kernel's lock, anywhere by
    the lease on the run's storage (`hold`). What a killed driver's local Ray left behind is stopped
    first, so that it cannot write into the run any more.
    """

    def __init__(self, config: Demand, root: str) -> None:
        """`root`: the run's folder, which identifies it."""
        self.config = config
        self.started = False
        self._signal = 0
        self._before: Any = None
        self._root = root
        self._note, self._lease = SessionNote(root), Lease(root)
        self.losses = Losses(to_stderr, lambda text: None)
        """Is told what Ray says of lost workers and nodes."""
        self._heard = ExitStack()
        self._watch: NodeWatch | None = None

    def __enter__(self) -> Session:
        self._note.take()
        if _in_charge():
            self._before = signal.signal(signal.SIGTERM, self._leave)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and not self._lease.lost:
            say_stopped(self._root)
        self.losses.ending = True
        if self._watch is not None:
            self._watch.close()
        try:
            if self.started:
                import ray

                with held_signals():  # who is impatient presses Ctrl-C twice
                    rest()
                    ray.shutdown()
        finally:
            self._heard.close()
            self._lease.release()
            self._note.release()
            if self._before is not None:
                signal.signal(signal.SIGTERM, self._before)
        if self._signal:
            sys.exit(128 + self._signal)
        if error is None or isinstance(error, KeyboardInterrupt):
            self.check()

    def hold(self, display: Progress) -> None:
        """Take the lease of the run on its storage; see `Lease.take` for what is raised."""
        display.stage("lease")
        self._lease.take(display, interrupts=_in_charge())

    def check(self) -> None:
        """Raise StorageError where another driver has taken the run over."""
        self._lease.check()

    @property
    def spare(self) -> bool:
        """Whether two stages at once gain something and take nothing from each other.

        On the run's own Ray on several cores, of which it has `LOGICAL_CPUS_PER_CORE` times as many
        as a stage's workers take. A GPU's memory is measured, for one stage, and given to it.
        """
        resources = self.config.resources
        local = self.started and is_local(resources)
        return local and not resources.gpus_per_worker and local_cpus() > 1

    def start(self) -> None:
        """Join or start Ray once.

        Raises
        ------
        ConfigError
            Ray has less than is asked.
        StageError
            Ray does not start, or there is none at the address.
        """
        if self.started:
            return
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        if _ray_runs():
            import ray

            check_cluster(self.config, ray.cluster_resources())
        else:
            with held_signals() as stopping:
                self._start(stopping)
            self._heard.enter_context(heard(self.losses))
            self._watch = NodeWatch(self._node_lost)
        _hush()

    def _start(self, stopping: list[int]) -> None:
        """`stopping`: signals that came meanwhile."""
        local = is_local(self.config.resources)
        guard_token(make=local)
        if local:
            start_local(logical_cpus(), self.config.resources.object_store_memory, stopping)
            self.started = True
            self._note.write(children())
            return
        address = address_of(self.config.resources)
        join(address, "Fix: see the head's log; its Ray and Python must be of these versions")
        self.started = True
        import ray

        check_cluster(self.config, ray.cluster_resources())

    def _node_lost(self, name: str, pid: int) -> None:
        """One of Ray's own processes on this machine is gone, and with it all workers here."""
        if self.losses.ending:  # by this driver itself
            return
        text = (
            f"Ray's {name} on this machine (process {pid}) has ended: killed, crashed, or the "
            "memory was full, and Ray's workers here end with it. Fix: if it was the memory, fewer "
            "workers or smaller batches; the same command goes on where it was"
        )
        end_for(StorageError(text))

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, of schedulers and `ray job stop`: as Ctrl-C, instead of Ray's stack trace."""
        self._signal = number
        raise KeyboardInterrupt  # Ray's waits pass on no other exception of a signal handler


def _in_charge() -> bool:
    """Whether signals are this driver's: in a worker, as in a benchmark's tasks, they are Ray's."""
    return threading.current_thread() is threading.main_thread() and not _ray_runs()


def _hush() -> None:
    """Ray Data, Train and Tune narrate; raysynth has its own progress display."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A worker's refusal comes through as itself; else only its text does, inside one of Ray's own.
    context.raise_original_map_exception = True
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
