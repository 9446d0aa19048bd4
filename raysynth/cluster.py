"""Joining a Ray cluster, or starting a local one; what is asked is checked against it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from raysynth.config import Config, ResourcesConfig
from raysynth.errors import ConfigError, StageError

# Ray Data's pools hold their CPUs while its reads and writes wait for one each: a local Ray gets
# logical CPUs in excess of the cores so that two actors per stage cannot starve the plumbing.
LOGICAL_CPUS_PER_CORE = 4
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
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # on Ctrl-C Tune hands over a part of a search as the whole
}
LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per fine-tuning worker, for spot nodes
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else Ray's C++ core writes into the driver's terminal
    "RAY_worker_maximum_startup_concurrency": "8",  # it warns at four times this many workers
    # On few cores Ray keeps hardly any idle worker for more than a second: each block of images had
    # its workers started anew, 1.5 CPU seconds for 64 images. Milliseconds.
    "RAY_idle_worker_killing_time_threshold_ms": "30000",
}

LOCAL_STARTS = 3
"""Attempts to start a local Ray."""
REFUSALS = (ValueError, OSError)
"""What Ray raises of a setting or a folder; no later start would get further."""

REACH_SECONDS = 10.0
"""To wait for an answer of a cluster's address."""


class Session:
    """Ray for one run, started at the first stage that needs it; a context manager.

    A second driver of the same run on this machine is refused; what a killed driver's local Ray
    left behind is stopped first, so that it cannot write into the run any more.
    """

    def __init__(self, config: Config, root: str) -> None:
        """`root`: the run's folder, which identifies it."""
        self.config = config
        self.started = False
        self._signal = 0
        self._before: Any = None
        name = hashlib.sha256(root.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"raysynth-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._note = folder / f"{name}.json"
        self._root = root

    def __enter__(self) -> Session:
        self._take_over()
        self._note_down([])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            stopped = f"raysynth: stopped. The same command goes on with {self._root}"
            print(stopped, file=sys.stderr, flush=True)
        if self.started:
            import ray

            ray.shutdown()
        self._note.unlink(missing_ok=True)
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self._signal:
            sys.exit(128 + self._signal)

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
        import ray
        import ray.data

        if ray.is_initialized():
            check_cluster(self.config, ray.cluster_resources())
            _hush()
            return
        if is_local(self.config.resources):
            for key, value in LOCAL_ENVIRONMENT.items():
                os.environ.setdefault(key, value)
            _start_local(self.config.resources)
            self._note_down(_processes())
        else:
            address = address_of(self.config.resources)
            _init(address, "Fix: see the head's log; its Ray and Python must be of these versions")
            check_cluster(self.config, ray.cluster_resources())
        self.started = True
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._leave)
        _hush()

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM, of schedulers and `ray job stop`: as Ctrl-C, instead of Ray's stack trace."""
        self._signal = number
        raise KeyboardInterrupt  # Ray's waits pass on no other exception of a signal handler

    def _take_over(self) -> None:
        """Refuse a run that is being driven; stop what a dead driver's local Ray left running."""
        if not self._note.exists():
            return
        note = json.loads(self._note.read_text())
        driver = _alive(*note["driver"])
        if driver is not None and driver.pid != os.getpid():
            raise ConfigError(
                f"{self._root} is being run by process {driver.pid} on this machine. Fix: wait for "
                "it, stop it, or give this run another name (name=...)"
            )
        _stop(note["ray"])

    def _note_down(self, processes: list[tuple[int, float]]) -> None:
        import psutil

        me = psutil.Process()
        note = {"driver": (me.pid, me.create_time()), "ray": processes}
        self._note.write_text(json.dumps(note))


def _start_local(resources: ResourcesConfig) -> None:
    """Start a Ray on this machine; once more where it does not come up.

    Its daemon waits 15 s for processes of its own and ends, and the driver waits 30 s for the
    daemon: on a machine that is busy for a moment (load above about 8 per core) too short. What Ray
    refuses, such as an object store larger than the memory, is not tried again.

    Raises
    ------
    StageError
        Ray refuses a setting, or has not come up LOCAL_STARTS times.
    """
    for start in range(1, LOCAL_STARTS + 1):
        before = _processes()
        try:
            with _held_stderr():
                _init(
                    "local",
                    "is this machine overloaded, or its memory or /tmp full? Fix: run the same "
                    "command again when it is not; it goes on where it was",
                    num_cpus=logical_cpus(),
                    object_store_memory=resources.object_store_memory,
                    include_dashboard=False,
                )
        except StageError as error:
            _stop([pair for pair in _processes() if pair not in before])  # Ray leaves them running
            if start == LOCAL_STARTS or isinstance(error.__cause__, REFUSALS):
                raise
            print(f"raysynth: Ray did not start, trying again ({start})", file=sys.stderr)
        else:
            return


def _init(address: str, advice: str, **settings: Any) -> None:
    """Start or join Ray; what it raises, of no common class, as StageError with `advice`."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StageError(
            f"Ray cannot be used at address {address!r}: {reason}\n{advice}"
        ) from error


def address_of(resources: ResourcesConfig) -> str:
    """The cluster that a run joins; `local`: a Ray of its own on this machine."""
    return resources.address or os.environ.get("RAY_ADDRESS") or "local"


def check_reachable(address: str) -> None:
    """Ask a cluster's address, if it says host and port: Ray would wait for minutes, in silence.

    Raises
    ------
    ConfigError
        Nothing answers there.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return  # `auto`, or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"resources.address or RAY_ADDRESS: nothing answers at {address} ({error}); expected "
            "the address of a running Ray head, such as 10.0.0.5:6379. Fix: start it (`ray start "
            "--head` prints its address), or leave the address out for a Ray on this machine"
        ) from None


def is_local(resources: ResourcesConfig) -> bool:
    """Whether a run has a Ray of its own on this machine."""
    return address_of(resources) == "local"


def local_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def logical_cpus() -> int:
    """CPUs that a local Ray is started with; more than there are cores."""
    return local_cpus() * LOGICAL_CPUS_PER_CORE


def check_before_ray(config: Config) -> None:
    """Refuse what can be known before Ray starts: too few CPUs or GPUs here, no cluster there.

    Where Ray runs, as in a benchmark's tasks, it is asked: this machine may be one of its nodes.
    """
    ray = sys.modules.get("ray")  # not imported here: it reads `ENVIRONMENT` when it is
    if ray is not None and ray.is_initialized():
        check_cluster(config, ray.cluster_resources())
        return
    resources = config.resources
    if not is_local(resources):
        check_reachable(address_of(resources))
        return
    _check_memory(resources)
    available: dict[str, float] = {"CPU": local_cpus()}
    if resources.gpus_per_worker or config.search.gpus_per_trial:
        import torch

        available["GPU"] = torch.cuda.device_count()
    _check_asked(
        config,
        available,
        "this machine",
        "name a cluster (resources.address or RAY_ADDRESS; resources.autoscales=true is for one "
        "that grows on demand)",
    )


def _check_memory(resources: ResourcesConfig) -> None:
    """Refuse an object store that is larger than this machine's memory."""
    import psutil

    there, asked = psutil.virtual_memory().total, resources.object_store_memory
    if asked > there:
        raise ConfigError(
            f"resources.object_store_memory: asks for {asked:,} bytes, this machine has {there:,} "
            "of memory. Fix: lower it; `raysynth plan` says what a run needs"
        )


def check_cluster(config: Config, available: dict[str, float]) -> None:
    """Refuse a configuration that asks for more CPUs or GPUs than the Ray cluster has.

    Raises
    ------
    ConfigError
        Unless `resources.autoscales` says that the cluster grows on demand.
    """
    if not config.resources.autoscales:
        advice = "set resources.autoscales=true if the cluster grows on demand"
        _check_asked(config, available, "the Ray cluster", advice)


def _check_asked(config: Config, available: dict[str, float], where: str, advice: str) -> None:
    resources, search = config.resources, config.search
    asked = {
        "CPU": (resources.workers * resources.cpus_per_worker, "cpus_per_worker"),
        "GPU": (resources.workers * resources.gpus_per_worker, "gpus_per_worker"),
    }
    trials = {
        "CPU": (search.concurrent * search.cpus_per_trial, "cpus_per_trial"),
        "GPU": (search.concurrent * search.gpus_per_trial, "gpus_per_trial"),
    }
    for kind in ("CPU", "GPU"):
        there = available.get(kind, 0)
        for section, count, (number, key) in (
            ("resources", "workers", asked[kind]),
            ("search", "concurrent", trials[kind]),
        ):
            if number > there:
                raise ConfigError(
                    f"{section}.{count} x {section}.{key}: asks for {number:g} {kind}s, {where} "
                    f"has {there:g}. Fix: lower {section}.{count} or {section}.{key}, or {advice}"
                )


def _alive(pid: int, created: float) -> Any:
    """The process with this pid if it is still the same one; None otherwise."""
    import psutil

    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1 and process.status() != "zombie"
        return process if same else None
    except psutil.NoSuchProcess:
        return None


def _processes() -> list[tuple[int, float]]:
    """Pid and start time of this process's children, which a local Ray's daemons are."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found.append((process.pid, process.create_time()))
        except psutil.NoSuchProcess:
            continue
    return found


def _stop(processes: Sequence[tuple[int, float]]) -> None:
    """End those of these processes (pid, start time) that are still there."""
    import psutil

    def left() -> list[Any]:
        return [process for pair in processes if (process := _alive(*pair)) is not None]

    for process in left():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + 10
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left():
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Keep back what Ray's C++ core writes to file descriptor 2; shown only if starting fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


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
