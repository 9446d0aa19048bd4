"""How a command ends that did not go well: one line, an exit code, the traceback in a file."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from raysynth.errors import (
    FaultError,
    RaysynthError,
    StorageError,
    causes,
    is_rays,
    refusal_in,
    without_advice,
)
from raysynth.storage.faults import AWAY, FULL, PACKAGES
from raysynth.terminal import clipped, masked, shown

EXIT_CODES = """\
Exit codes: 0 done; 2 refused: the input cannot be run, and the same command is refused again; 3 try
again: a disk, a network, a worker failed, and the same command goes on where it was; 1 a fault of
raysynth's own; 130 (Ctrl-C) and 143 (SIGTERM) stopped, and the same command goes on."""
REMOTE = frozenset((*PACKAGES, "urllib3", "requests"))
"""Packages whose errors say that storage or a network did not answer."""
PASSING = {*AWAY, *FULL, *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)}
"""What the system refuses for reasons outside the run."""
LONGEST_REASON = 400
NAME = "raysynth-traceback-"
"""How the names of the files with full tracebacks begin."""
PUT_SECONDS = 10.0
"""For such a file to be written to another storage than a disk."""


@contextmanager
def in_words(folder: str | None = None) -> Iterator[None]:
    """Every error of the body as a RaysynthError: what it is, and whether the command goes on.

    Parameters
    ----------
    folder : the run's folder or URI, if one is known: it takes the traceback.

    Raises
    ------
    RaysynthError
        The body's own, wherever Ray has wrapped it; StorageError for what passes, FaultError for
        everything else.
    """
    try:
        yield
    except Exception as error:
        own = refusal_in(error)
        if own is error:
            raise
        raise own or _in_own_words(error, folder) from error


def exit_code_of(error: Exception) -> int:
    """The code with which a command ends that raises this."""
    own = refusal_in(error)
    if own is not None:
        return own.exit_code
    return (StorageError if _passes(_root(error)) else FaultError).exit_code


def _in_own_words(error: Exception, folder: str | None) -> RaysynthError:
    root = _root(error)
    reason = " ".join(without_advice(root).split())
    what = f"{type(root).__name__}: {reason}" if reason else type(root).__name__
    what = clipped(shown(masked(what)), LONGEST_REASON)
    whole = _write_traceback(error, folder)
    kept = f"the full traceback is in {whole}" if whole else "the traceback could not be written"
    if _passes(root):
        return StorageError(
            f"{what}. Fix: see to the disk, the network, the permission or the worker that it "
            f"names; the same command goes on where it was ({kept})"
        )
    fix = "the same command goes on where it was; if it ends here again, report it with that file"
    if isinstance(root, MemoryError) or "OutOfMemory" in type(root).__name__:
        fix = (
            "fewer workers or smaller batches (resources.workers, synthesis.batch_size, "
            "clustering.batch_size), or a larger machine; the same command goes on where it was"
        )
    return FaultError(f"unforeseen {what} ({_where(root)}). Fix: {fix} ({kept})")


def _root(error: BaseException) -> BaseException:
    """What a task raised, below Ray's wrapping."""
    seen = set()
    while is_rays(error) and id(error) not in seen and (inner := causes(error)):
        seen.add(id(error))
        error = inner[0]
    return error


def _passes(error: BaseException) -> bool:
    """Whether an error says something of a disk, a network or a worker, not of raysynth."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in PASSING:
        return True
    kinds = [(kind.__module__, kind.__name__) for kind in type(error).__mro__]
    lost = any(name == "RayError" for _, name in kinds) and "RayTaskError" not in str(kinds)
    remote = any(module.partition(".")[0] in REMOTE for module, _ in kinds)
    return lost or (remote and type(error).__name__ != "ParamValidationError")


def _where(error: BaseException) -> str:
    """The file that an error is about, or the line of raysynth's that it passed last."""
    name = getattr(error, "filename", None)
    if name:
        return clipped(shown(masked(f"file {name}")))
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent)
    own = [frame for frame in frames if frame.filename.startswith(package)] or frames
    if not own:
        return "in a worker"
    return f"in {Path(own[-1].filename).name}, line {own[-1].lineno}, {own[-1].name}"


def _write_traceback(error: BaseException, folder: str | None) -> str:
    """Path or URI of the file that has the full traceback; "" where none can be written."""
    command = masked(shlex.join(sys.argv))
    head = f"raysynth {version('raysynth')}, Python {platform.python_version()}: {command}\n"
    text = head + masked("".join(traceback.format_exception(error)))
    data = text.encode(errors="backslashreplace")
    if (
        folder
        and "://" in folder
        and (uri := _put(f"{folder}/{NAME}{os.urandom(4).hex()}.txt", data))
    ):
        return uri
    places = [folder] if folder and "://" not in folder and os.path.isdir(folder) else []
    for place in (*places, None):  # None: the temporary folder
        try:
            handle, path = tempfile.mkstemp(".txt", NAME, place)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
        except OSError:
            continue
        return path
    return ""


def _put(uri: str, data: bytes) -> str:
    """The URI once the data is there; "" where the storage, which may be the error, is too slow."""
    from raysynth.storage.files import write_atomic  # fsspec: not for a refusal

    put: list[str] = []

    def work() -> None:
        with suppress(Exception):
            write_atomic(uri, data, patience=0)
            put.append(masked(uri))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PUT_SECONDS)
    return put[0] if put else ""
