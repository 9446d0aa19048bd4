"""`raysynth dashboards RUN`: start the boards that there are for a run, say where, until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from raysynth.compare.read import Known, known
from raysynth.errors import ConfigError, StageError
from raysynth.repeated import repeated
from raysynth.storage.files import open_storage, sizes_below
from raysynth.terminal import masked, shown
from raysynth.trackers.several import FOLDER

HOST = "127.0.0.1"
"""Who is not on this machine sees nothing."""
START_SECONDS = 120.0
"""Until a board answers."""
FETCH_SECONDS = 15.0
"""Between two looks at event files on an object store."""
END_SECONDS = 1.5
"""For boards to end by themselves, before they are killed."""
RAY_PORT = 8265
TENSORBOARD = "from tensorboard.main import run_main; run_main()"
OPTUNA = "from optuna_dashboard._cli import main; main()"


@dataclass(frozen=True)
class Board:
    """A board that is started here: what it is called, its module, its command but for the port."""

    title: str
    module: str
    command: tuple[str, ...]


def serve(root: str, port: int, say: Callable[[str], None] = print) -> None:
    """Start a run's boards, say where they are, and stay until Ctrl-C or SIGTERM.

    Parameters
    ----------
    root : the run's folder or URI.
    port : of the first board, the others take the next free ones.
    say : is told a line per board, each as soon as it answers.

    Raises
    ------
    ConfigError
        There is no run, or TensorBoard is not installed.
    StageError
        All boards ended by themselves; one that does is said.
    """
    run = known(root)
    if not _installed("tensorboard"):
        raise ConfigError(
            "dashboards: TensorBoard is not installed. Fix: pip install 'raysynth[dashboards]'"
        )
    with _stopped_by_signals(), _events(run) as folder, contextlib.ExitStack() as ends:
        started = []
        for board in _boards(run, folder):
            at = _free(port)
            port = at + 1
            process = ends.enter_context(_running(board, at))
            started.append((board, process, at))
        for title, where in _elsewhere(run):
            say(f"{title:<12} {where}")
        for board, process, at in started:
            up = _await(process, at)
            say(f"{board.title:<12} {f'http://{HOST}:{at}/' if up else _over(board, process)}")
        say("Ctrl-C ends them.")
        while any(process.poll() is None for _, process, _ in started):
            time.sleep(0.5)
        raise StageError(f"dashboards: {'; '.join(_over(*each[:2]) for each in started)}")


def _boards(run: Known, folder: str) -> Iterator[Board]:
    """Those that can be started for a run; `folder`: its event files."""
    command = ("-c", TENSORBOARD, "--logdir", folder, "--host", HOST, "--port")
    yield Board("TensorBoard", "tensorboard", command)
    storage = run.settings.get("search.storage")
    if storage and _installed("optuna_dashboard"):
        asked = ("-c", OPTUNA, str(storage), "--host", HOST, "--port")
        yield Board("Optuna", "optuna_dashboard", asked)


def _elsewhere(run: Known) -> Iterator[tuple[str, str]]:
    """(what it is called, where it is) of what is not started here."""
    page = run.place("report")
    told = f"{page}/index.html" if page else f"none yet, the run is {run.status.state}"
    yield "Report", shown(masked(told))
    address = run.settings.get("resources.address") or os.environ.get("RAY_ADDRESS")
    host = _host(str(address)) if address else ""
    if host:
        yield "Ray", f"http://{host}:{RAY_PORT}/ ({'answers' if _answers(host) else 'is away'})"
    else:
        yield "Ray", "none: a run on one machine starts a Ray without a dashboard"
    if run.settings.get("search.storage") and not _installed("optuna_dashboard"):
        yield "Optuna", "not installed. Fix: pip install 'raysynth[dashboards]'"


def _host(address: str) -> str:
    """The host of `ray://host:10001`, `host:6379` or `auto`."""
    host = address.partition("://")[2] or address
    host = host.rpartition(":")[0] or host
    return {"auto": HOST, "local": ""}.get(host, host)


def _answers(host: str, port: int = RAY_PORT) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _free(port: int) -> int:
    """The first free port from this one on."""
    for each in range(port, port + 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, each))
            return each
    raise ConfigError(f"--port: none of {port} to {port + 99} is free. Fix: another --port")


@contextlib.contextmanager
def _running(board: Board, port: int) -> Iterator[Any]:
    """A board's process, whose words are kept for when it ends by itself."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, *board.command, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,  # Ctrl-C is for this process, which ends them
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: Any, port: int) -> bool:
    """Whether a board answers in time."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(HOST, port):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _over(board: Board, process: Any) -> str:
    how = "does not answer" if process.poll() is None else f"ended, exit code {process.poll()}"
    return (
        f"{board.title} {how}. Fix: see what `python -m pip check` says of {board.module}; the "
        "same command starts it again"
    )


@contextlib.contextmanager
def _events(run: Known) -> Iterator[str]:
    """A local folder of the run's event files; of those on an object store, a copy that grows."""
    remote = f"{run.root}/{FOLDER}"
    storage, path = open_storage(remote)
    if storage.is_disk:
        yield _own_folder(run) or f"{path}/tensorboard"
        return
    with tempfile.TemporaryDirectory(prefix="raysynth-events-") as local:
        grown = partial(fetch, f"{remote}/tensorboard", local, dict[str, int]())
        grown()
        with repeated(grown, FETCH_SECONDS, "events", END_SECONDS):
            yield local


def _own_folder(run: Known) -> str | None:
    """The folder that the tracker was told to write to, if it was."""
    for chosen in run.settings.get("trackers") or ():
        if isinstance(chosen, dict) and chosen.get("name") == "tensorboard":
            folder = (chosen.get("knobs") or chosen).get("folder")
            return f"{os.path.expanduser(folder)}/{run.name}" if folder else None
    return None


def fetch(remote: str, local: str, sizes: dict[str, int]) -> Sequence[str]:
    """Fetch the files that have grown since; `sizes`: those of the last time. Their names."""
    storage, path = open_storage(remote)
    storage.invalidate_cache()
    there = sizes_below(remote)
    grown = [name for name, size in there.items() if sizes.get(name) != size]
    for name in grown:
        target = f"{local}/{name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        data = storage.cat_file(f"{path}/{name}")
        with open(target, "wb") as file:
            file.write(data)
        sizes[name] = there[name]
    return grown


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block, which is no error."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
