"""Starting and joining Ray: a local one listens to this machine alone and leaves no readable files.

umask is left as it is: Ray's workers write the run's files and would inherit it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from raysynth.cluster.note import children, stop
from raysynth.cluster.stopping import held_terminal
from raysynth.errors import StageError, first_line
from raysynth.json_lines import to_stderr
from raysynth.storage.private_folder import is_private, narrow

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""`0`: Ray takes 127.0.0.1 for its node and all of its servers listen there alone, as on a Mac.

`_node_ip_address="127.0.0.1"` does nothing: Ray puts the machine's address in its place."""
LOCAL_ENVIRONMENT = {
    LOOPBACK: "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per fine-tuning worker, for spot nodes
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else Ray's C++ core writes into the driver's terminal
    # A local Ray starts a worker per logical CPU ahead, which are more than are used: a CPU second
    # each, and half a percent of a core for as long as they idle; its metrics nobody reads.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_maximum_startup_concurrency": "8",  # it warns at four times this many workers
    # On few cores Ray keeps hardly any idle worker for more than a second: each block of images had
    # its workers started anew, 1.5 CPU seconds for 64 images. Milliseconds.
    "RAY_idle_worker_killing_time_threshold_ms": "30000",
}

LOCAL_STARTS = 3
"""Attempts to start a local Ray."""
REFUSALS = (ValueError, OSError)
"""What Ray raises of a setting or a folder; no later start would get further."""

FOLDER_BYTES = 40
"""Longest path of Ray's temporary folder: its sockets lie 64 bytes below, and may have 107."""


def start_local(cpus: int, object_store_memory: int, stopping: list[int]) -> None:
    """Start a Ray on this machine; once more where it does not come up.

    Its daemon waits 15 s for processes of its own and ends, and the driver waits 30 s for the
    daemon: on a machine that is busy for a moment (load above about 8 per core) too short. What Ray
    refuses, such as an object store larger than the memory, is not tried again; nor is anything
    once a signal is in `stopping`.

    Raises
    ------
    StageError
        Ray refuses a setting, or has not come up LOCAL_STARTS times.
    """
    for key, value in LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    folder = ray_folder()
    for start in range(1, LOCAL_STARTS + 1):
        before = children()
        try:
            with _held_stderr():
                join(
                    "local",
                    "is this machine overloaded, or its memory or /tmp full? Fix: run the same "
                    "command again when it is not; it goes on where it was",
                    num_cpus=cpus,
                    object_store_memory=object_store_memory,
                    include_dashboard=False,
                    _temp_dir=folder,
                )
        except StageError as error:
            stop([pair for pair in children() if pair not in before])  # Ray leaves them running
            if stopping or start == LOCAL_STARTS or isinstance(error.__cause__, REFUSALS):
                raise
            to_stderr(f"Ray did not start, trying again ({start})", "warning")
        else:
            return


def join(address: str, advice: str, **settings: Any) -> None:
    """Start or join Ray; what it raises, of no common class, as StageError with `advice`."""
    import ray.data  # here, where a signal waits: half of an import cannot be gone on with

    _listen(local=address == "local")
    try:
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:
        reason = first_line(error)
        raise StageError(
            f"Ray cannot be used at address {address!r}: {reason}\n{advice}"
        ) from error


def ray_folder() -> str:
    """Where a local Ray keeps sockets, logs and what leaves its memory; nobody else may enter.

    Ray opens its own folder to everybody (mode 777): the one above has to be closed.
    """
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    name = f"raysynth-{os.geteuid()}"
    if len(os.fsencode(f"{base}/{name}/ray")) > FOLDER_BYTES:
        base = "/tmp"
    folder = Path(base) / name
    if not is_private(folder):
        folder = Path(tempfile.mkdtemp(prefix="raysynth-", dir=base))
    return str(folder / "ray")


def _listen(*, local: bool) -> None:
    """Where Ray's servers listen: at 127.0.0.1 for a local Ray, else where a cluster reaches them.

    Ray reads the variable when it is imported, which may have been long ago, in a notebook.
    """
    from ray._private import ray_constants

    if local:
        ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(LOOPBACK) != "0"
    elif sys.platform == "linux" and os.environ.get(LOOPBACK) == "0":
        del os.environ[LOOPBACK]
        ray_constants.ENABLE_RAY_CLUSTER = True


def guard_token(*, make: bool) -> None:
    """The token with which a Ray is entered: its file is this user's alone, from its first byte.

    Ray makes one for a local Ray where there is none, for everybody to read: it is made before.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        to_stderr(
            "RAY_AUTH_MODE=disabled: whoever reaches this Ray's ports runs code as you. Fix: unset "
            "it, or set RAY_AUTH_MODE=token",
            "warning",
        )
        return
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    file = Path(os.path.expanduser("~")) / ".ray" / "auth_token"
    with suppress(OSError):  # there is one, or no home: Ray says what it needs
        if make:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(file, flags, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32))  # as Ray makes it
    narrow(file)


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """Keep Ctrl-C and SIGTERM until the block's end: what has come so far.

    An exception in the midst of Ray's start or end, which is where Python would raise it, tears its
    C++ core down while it is being built: a segmentation fault, and daemons that nobody knows.
    """
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, keep)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray's start would put its own handler in place: sys.exit wherever it stands."""
    from ray._private import utils

    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Keep back what Ray's C++ core writes to file descriptor 2; shown only if starting fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        held_terminal.append(terminal)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            held_terminal.remove(terminal)
            os.dup2(terminal, 2)
            os.close(terminal)
