"""A run's note on this machine: one driver at a time, and what a dead one's Ray left is ended.

The note names processes that are to be ended, so nothing in it is believed that another user could
have put there: the folder is ours alone, the lock is the kernel's, a process must be our Ray's.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raysynth.errors import ConfigError
from raysynth.json_lines import to_stderr
from raysynth.knobs import digest_of
from raysynth.storage.cache import cache_folder
from raysynth.storage.private_folder import open_private

Born = tuple[int, float]
"""A process: its pid and its start, in seconds since 1970; a pid alone is given out again."""

NOTE_BYTES = 1 << 20
"""More than any note has."""
RAY_PROGRAMS = ("/ray/core/src/ray/", "/ray/_private/", "/ray/dashboard/", "/ray/autoscaler/")
"""Where the programs lie that Ray starts; its workers are called ray::... once they are up."""


@functools.cache
def machine() -> str:
    """What tells this machine, since it was started, and this container on it from all others."""
    told = [socket.gethostname(), str(uuid.getnode())]
    with suppress(OSError):
        told = [told[0], Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        told.append(os.readlink("/proc/self/ns/pid"))
    return digest_of(told)


class SessionNote:
    """The lock and the note of one run: `take` it, `write` what was started, `release` it."""

    def __init__(self, root: str) -> None:
        """`root`: the run's folder. A home may be shared by machines: the name holds this one's."""
        self.root = root
        self._name = hashlib.sha256(f"{socket.gethostname()}\n{root}".encode()).hexdigest()[:16]
        self._folder: int | None = None
        self._lock: int | None = None

    def take(self) -> None:
        """Hold the run until `release` or this process's end; end a dead driver's Ray.

        Raises
        ------
        ConfigError
            Another driver holds it.
        """
        for path in _places():
            folder = open_private(path)
            if folder is None:
                continue
            try:
                self._lock = self._hold(folder)
            except BaseException:
                os.close(folder)
                raise
            if self._lock is not None:
                self._folder = folder
                stop([pair for pair in self._read()[1] if _is_rays(pair)])
                self.write([])
                return
            os.close(folder)
        to_stderr(
            "what this run's Ray leaves behind if it is killed will not be ended by the next "
            f"start: there is no folder for a note ({', '.join(map(str, _places()))}). Fix: make "
            "one of these a folder of yours that nobody else may enter (chmod 700)",
            "warning",
        )

    def write(self, processes: Sequence[Born]) -> None:
        """Name what is to be ended if this process cannot; where that fails, nothing is named."""
        if self._folder is None:
            return
        content = json.dumps({"driver": born(os.getpid()), "ray": processes}).encode()
        unfinished = f"{self._name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._remove(unfinished)
        with suppress(OSError):  # a full disk, a folder of that name: no reason to stop a run
            file = os.open(unfinished, flags, 0o600, dir_fd=self._folder)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
            os.rename(unfinished, self._note_name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def release(self) -> None:
        """Give the run free; twice is as once."""
        if self._folder is None or self._lock is None:
            return
        for name in (self._note_name, self._lock_name):  # the lock's last, while it is held
            self._remove(name)
        os.close(self._lock)
        os.close(self._folder)
        self._lock = self._folder = None

    def driver(self) -> Born | None:
        """The process that drives the run on this machine now; None: none that is known."""
        for path in _places():
            folder = open_private(path)
            if folder is None:
                continue
            try:
                driver = self._read(folder)[0]
            finally:
                os.close(folder)
            if driver is not None and alive(driver) is not None:
                return driver
        return None

    @property
    def _note_name(self) -> str:
        return f"{self._name}.json"

    @property
    def _lock_name(self) -> str:
        return f"{self._name}.lock"

    def _hold(self, folder: int) -> int | None:
        """A descriptor that holds the lock; None where there can be none.

        The kernel frees it with the last copy of the descriptor, which no program that is started
        from here inherits.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            try:
                lock = os.open(self._lock_name, flags, 0o600, dir_fd=folder)
            except OSError:
                return None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                there = os.stat(self._lock_name, dir_fd=folder, follow_symlinks=False)
                if os.path.samestat(there, os.fstat(lock)):
                    return lock
            except FileNotFoundError:
                pass  # the one who held it has removed its file: another may have made a new one
            except BlockingIOError:
                os.close(lock)
                raise self._held(folder) from None
            except OSError:  # a file system without locks
                os.close(lock)
                return None
            os.close(lock)

    def _held(self, folder: int) -> ConfigError:
        driver = self._read(folder)[0]
        who = (
            "another process" if driver is None or alive(driver) is None else f"process {driver[0]}"
        )
        return ConfigError(
            f"{self.root} is being run by {who} on this machine. Fix: wait for it, stop it, or "
            "give this run another name (name=...)"
        )

    def _read(self, folder: int | None = None) -> tuple[Born | None, list[Born]]:
        """Driver and Ray's processes of the note; what cannot be read says nothing."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(
                self._note_name, flags, dir_fd=self._folder if folder is None else folder
            )
            try:
                note = json.loads(os.read(file, NOTE_BYTES))
            finally:
                os.close(file)
        except (OSError, ValueError, RecursionError):
            return None, []
        if not isinstance(note, dict):
            return None, []
        listed = note.get("ray")
        pairs = [_pair(each) for each in listed] if isinstance(listed, list) else []
        return _pair(note.get("driver")), [pair for pair in pairs if pair is not None]

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)


def _places() -> Iterator[Path]:
    """Folders for notes, best first: the one that stays when its user logs out, then the other."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    for place in (cache_folder(), Path(session or "") / "raysynth"):
        if place.is_absolute():
            yield place


def _pair(value: object) -> Born | None:
    """Pid and start as a note holds them; None for anything else."""
    if not (isinstance(value, list) and len(value) == 2):
        return None
    pid, start = value
    if type(pid) is not int or not 1 < pid < 1 << 31 or type(start) not in (int, float):
        return None
    return (pid, float(start)) if abs(start) < math.inf and abs(start) < 1e12 else None


def _is_rays(pair: Born) -> bool:
    """Whether this is a process of this user's that Ray started."""
    import psutil

    process = alive(pair)
    try:
        return (
            process is not None
            and process.uids().real == os.getuid()
            and is_ray_command(process.cmdline())
        )
    except psutil.Error:
        return False


def is_ray_command(command: Sequence[str]) -> bool:
    """Whether a command line is one of Ray's: a daemon, an agent or a worker."""
    if not command:
        return False
    program = command[0]
    if program.startswith("ray::"):
        return True
    if Path(program).name.startswith("python"):
        program = next((word for word in command[1:] if not word.startswith("-")), "")
    return any(part in program for part in RAY_PROGRAMS)


def alive(pair: Born) -> Any:
    """The process with this pid if it is still the same one; None otherwise."""
    import psutil

    pid, created = pair
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 1 and process.status() != "zombie"
        return process if same else None
    except psutil.Error:
        return None


def children() -> list[Born]:
    """This process's children and theirs, which a local Ray's daemons are."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append((process.pid, process.create_time()))
    return found


def stop(processes: Sequence[Born]) -> None:
    """End those of these processes that are still there."""
    import psutil

    def left() -> list[Any]:
        return [process for pair in processes if (process := alive(pair)) is not None]

    for process in left():
        with suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + 10
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left():
        with suppress(psutil.Error):
            process.kill()


def born(pid: int) -> Born:
    """A process as it can be recognised later."""
    import psutil

    return pid, psutil.Process(pid).create_time()
