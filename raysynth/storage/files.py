"""Files on any filesystem: read or written whole, found by name, moved, tried again for a while.

Calls of what `open_storage` gives outlast a storage that is away for a moment. If it does not come
back, a StorageError names the file; a file that is there and cannot be understood is a DataError.
Names are never patterns: a folder may be called `runs [v2]`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from raysynth.errors import DataError
from raysynth.metrics import STORAGE_ERRORS, STORAGE_RETRIES, add
from raysynth.storage.faults import is_away, storage_error
from raysynth.terminal import masked

PATIENCE_SECONDS = 120.0
"""How long a call is tried again; an object store that restarts is back by then."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
TEMPORARY_SUFFIX = ".tmp"

T = TypeVar("T")


class Storage:
    """An fsspec filesystem whose calls are tried again while the storage is away."""

    def __init__(self, filesystem: Any, path: str, patience: float) -> None:
        self.bare, self._path, self._patience = filesystem, path, patience

    @property
    def is_disk(self) -> bool:
        """Whether it is a mounted disk, with renames and half-written files, no object store."""
        protocol = self.bare.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def cat_file(self, path: str, **part: int) -> bytes:
        """A file's bytes, or, from `start` to `end`, a part of them.

        By one request: of a whole object s3fs would ask for the size first, to read large ones in
        parts beside each other.
        """
        given = part or _alone(self.bare)
        found = patiently(lambda: self.bare.cat_file(path, **given), path, self._patience)
        return bytes(found)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.bare, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            where = given[0] if given and isinstance(given[0], str) else self._path
            return patiently(lambda: found(*given, **named), where, self._patience)

        return call


def _alone(filesystem: Any) -> dict[str, int]:
    """What keeps a filesystem from reading an object in several parts at a time."""
    read = getattr(filesystem, "_cat_file", None)
    known = read is not None and "max_concurrency" in inspect.signature(read).parameters
    return {"max_concurrency": 1} if known else {}


def open_storage(path: str, patience: float = PATIENCE_SECONDS) -> tuple[Storage, str]:
    """The filesystem of a path or URI, and the path as that filesystem names it.

    Raises ValueError or ImportError for a scheme that fsspec does not know or cannot open.
    """
    filesystem, name = fsspec.core.url_to_fs(path)
    return Storage(filesystem, path, patience), str(name)


def patiently(call: Callable[[], T], path: str, patience: float = PATIENCE_SECONDS) -> T:
    """`call()`, tried again with growing pauses while the storage of `path` is away.

    Raises
    ------
    StorageError
        The disk is full, the storage stayed away for `patience` seconds, or it refuses. What is
        merely not there (FileNotFoundError) is raised as it is.
    """
    deadline, pause = time.monotonic() + patience, FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            if is_away(error) and time.monotonic() + pause < deadline:
                add(STORAGE_RETRIES)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            failure = storage_error(error, path)
            if failure is None:
                raise
            add(STORAGE_ERRORS)
            raise failure from error


def read_json(path: str, patience: float = PATIENCE_SECONDS) -> Any:
    """A JSON file's value, or None when there is no such file.

    Raises
    ------
    DataError
        It is no JSON: cut off, empty, or something else.
    """
    storage, name = open_storage(path, patience)
    try:
        data = storage.cat_file(name)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise _a_folder(path) from None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{masked(path)}: no JSON ({str(error)[:200]}); expected what raysynth wrote there. "
            "Fix: delete it, and run again"
        ) from None


def read_now(path: str) -> Any:
    """A JSON file that another process writes and removes, past any cache; None: not there."""
    open_storage(path)[0].invalidate_cache()
    try:
        return read_json(path, patience=0)
    except DataError:  # a notice between processes: the next one is whole
        return None


def _a_folder(path: str) -> DataError:
    return DataError(
        f"{masked(path)}: a folder, expected a file that raysynth writes. Fix: move it away, and "
        "run again"
    )


def read_record(path: str, *keys: str, kind: Any = object) -> dict[str, Any]:
    """A JSON file that must be there and be an object with these keys, each a `kind`.

    Raises
    ------
    DataError
        It is missing, cut off or another file.
    """
    record = read_json(path)
    whole = isinstance(record, dict) and record.keys() >= set(keys)
    if not whole or not all(isinstance(record[key], kind) for key in keys):
        found = "nothing" if record is None else f"{str(record)[:60]!r}"
        raise DataError(
            f"{masked(path)}: got {found}, expected an object with {', '.join(keys)}. Fix: delete "
            "the folder that it lies in and run again: its stage is made anew"
        )
    return dict(record)


def write_atomic(path: str, data: bytes | memoryview, patience: float = PATIENCE_SECONDS) -> None:
    """Write a whole file or nothing: rename on disks; an object store's PUT is already atomic.

    Raises
    ------
    StorageError
        The disk is full, or the storage stayed away; nothing of the attempt is left.
    DataError
        A folder is in the file's place.
    """
    storage, name = open_storage(path, patience)
    if storage.is_disk:
        try:
            patiently(lambda: _replace(name, data), path, patience)
        except IsADirectoryError:
            raise _a_folder(path) from None
    else:
        storage.pipe_file(name, data if isinstance(data, bytes) else bytes(memoryview(data)))


def _replace(name: str, data: bytes | memoryview) -> None:
    os.makedirs(os.path.dirname(name), exist_ok=True)
    temporary = f"{name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power loss leaves the new name on an empty file
        os.replace(temporary, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def create(path: str, data: bytes, patience: float = PATIENCE_SECONDS) -> bool:
    """Write a small file unless there is one: whether it was written.

    Of two that do it at once one alone succeeds, on storages that can tell: disks, S3, GCS.
    """
    storage, name = open_storage(path, patience)
    try:
        if storage.is_disk:
            patiently(lambda: _write_new(name, data), path, patience)
            return True
        storage.pipe_file(name, data, mode="create")
    except FileExistsError:
        return False
    except (TypeError, ValueError, NotImplementedError, OSError):
        if storage.is_disk:
            raise
        if storage.exists(name):  # it cannot tell
            return False
        storage.pipe_file(name, data)
    return True


def _write_new(name: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "xb") as file:
        file.write(data)


def sizes_below(folder: str) -> dict[str, int]:
    """Bytes of every file below a folder or URI, by its name relative to it."""
    storage, root = open_storage(folder)
    storage.invalidate_cache()  # other processes write here
    found = storage.find(root, detail=True)
    start = root.rstrip("/")
    return {
        str(path).removeprefix(start).lstrip("/"): int(about["size"])
        for path, about in sorted(found.items())
        if not path.endswith("/")  # a key by which Arrow, Ray Train's, marks a folder on S3
    }


def misfits(folder: str, sizes: Mapping[str, int]) -> list[str]:
    """A sentence on each file below a folder or URI that has not the size it should have.

    `sizes`: as `sizes_below` gave them when the folder was whole; nothing: whatever is there is
    right, for versions before kept none.
    """
    if not sizes:
        return [] if exists(folder) else [f"{folder} is missing"]
    there = sizes_below(folder)
    return [
        f"{folder}/{file} is missing"
        if file not in there
        else f"{folder}/{file} has {there[file]:,} bytes, expected {size:,}"
        for file, size in sizes.items()
        if there.get(file) != size
    ]


def move(source: str, target: str) -> None:
    """Put a folder of a disk in the place of another, which goes: a rename."""
    old, new = open_storage(source)[1], open_storage(target)[1]
    remove(target)
    os.makedirs(os.path.dirname(new.rstrip("/")), exist_ok=True)
    patiently(lambda: os.rename(old, new), target)


def remove(path: str) -> None:
    """Remove a file, or a folder and all below it; nothing there is no error."""
    storage, name = open_storage(path)
    storage.invalidate_cache()
    with contextlib.suppress(FileNotFoundError):  # removed by an attempt whose answer was lost
        if storage.is_disk or not re.search(r"[*?\[]", name):
            if storage.exists(name):
                storage.rm(name, recursive=True)
            return
        for file in [*storage.find(name)]:  # fsspec's `rm` would take the name as a pattern
            storage.rm_file(file)


def remove_files(folder: str, names: Sequence[str]) -> None:
    """Remove files below a folder or URI, with one request where the storage can.

    Those that are not there are no error.
    """
    storage, root = open_storage(folder)
    paths = [f"{root}/{name}" for name in names]
    plain = not any(re.search(r"[*?\[]", path) for path in paths)  # fsspec's `rm` takes patterns
    if paths and plain and not storage.is_disk:
        with contextlib.suppress(FileNotFoundError):
            return storage.rm(paths)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            storage.rm_file(path)
    return None


def put_folder(local: str | Path, target: str) -> None:
    """Copy the files of a local folder, by name, into a folder or URI, which is made."""
    make_folder(target)
    storage, path = open_storage(target)
    for file in sorted(Path(local).iterdir()):
        storage.put_file(str(file), f"{path}/{file.name}")


def make_folder(path: str) -> None:
    """Make a folder and its parents, where the storage has folders."""
    storage, name = open_storage(path)
    storage.makedirs(name, exist_ok=True)


def exists(path: str) -> bool:
    """Whether something is at a path or URI."""
    storage, name = open_storage(path)
    return bool(storage.exists(name))


def sweep(folder: str, *, deep: bool = True) -> None:
    """Remove the temporary files of processes that were killed while they wrote below a folder.

    On disks only, where there are such files; `deep=False`: not in its sub-folders.
    """
    storage, root = open_storage(folder)
    if not storage.is_disk or not os.path.isdir(root):
        return
    for where, folders, names in os.walk(root):
        if not deep:
            folders.clear()
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(where, name))
