"""The run's storage: written, listed, moved and deleted from every node, as a run does it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from raysynth.config.config import Config
from raysynth.config.storage import check_apart, require_filesystem
from raysynth.doctor.check import FAIL, OK, Check, Failed, Finding, Scene, on, places, together
from raysynth.errors import ConfigError
from raysynth.storage.files import (
    move,
    open_storage,
    read_json,
    remove,
    sizes_below,
    write_atomic,
)

PREFIX = ".raysynth-doctor-"
"""Of the folder in which the visits write."""


def folder_of(config: Config, visit: str) -> str:
    """Folder or URI that one examination writes to and removes."""
    return f"{config.storage_path.rstrip('/')}/{PREFIX}{visit}"


def look(config: Config, visit: str) -> dict[str, Any]:
    """Write two files, read and list them, delete one, move the other's folder to its place."""
    require_filesystem(config.storage_path)
    check_apart(config)
    start, own = time.monotonic(), uuid.uuid4().hex[:12]
    folder = f"{folder_of(config, visit)}/{own}"
    storage, name = open_storage(config.storage_path, patience=0)
    new = not storage.exists(name)
    try:
        for file in ("kept", "deleted"):
            write_atomic(f"{folder}/work/{file}.json", b'{"visit": "%s"}' % own.encode(), 0)
        remove(f"{folder}/work/deleted.json")
        move(f"{folder}/work", f"{folder}/place")
        read, found = read_json(f"{folder}/place/kept.json", 0), sorted(sizes_below(folder))
    except FileNotFoundError as error:
        raise ConfigError(
            f"storage_path: {config.storage_path} cannot be written ({error}). Fix: make the "
            "bucket or mount the disk, or name another with storage_path="
        ) from None
    if read != {"visit": own} or found != ["place/kept.json"]:
        raise ConfigError(
            f"storage_path: {config.storage_path} does not give back what was written: got "
            f"{str(read)[:60]} and the files {', '.join(found)[:200]}, expected place/kept.json "
            "alone. Fix: a storage whose listings are up to date (no cache between)"
        )
    return {"own": own, "seconds": time.monotonic() - start, "new": new}


def judge(scene: Scene) -> Iterator[Finding]:
    """Whether the driver sees what every node wrote; then all of it is removed."""
    config, seen = scene.config, scene.of("storage")
    if not seen:
        return
    folder = folder_of(config, scene.visit)
    try:
        there = sizes_below(folder)
        apart = [p for p, facts in seen.items() if f"{facts['own']}/place/kept.json" not in there]
    finally:
        failed = _clean(folder, config.storage_path, any(facts["new"] for facts in seen.values()))
    yield from together({places([*seen]): failed} if failed else {})
    if apart:
        yield Finding(
            FAIL,
            f"{places(apart)}: {config.storage_path} is another folder there than in the driver",
            "a mount that all nodes share, or a URI such as storage_path=s3://bucket/runs",
        )
    elif not failed:
        slowest = max(facts["seconds"] for facts in seen.values())
        yield Finding(
            OK,
            f"{config.storage_path}: written, listed, moved and deleted {on(scene, len(seen))}, in "
            f"{slowest:.2f} s at most",
        )


def _clean(folder: str, storage_path: str, new: bool) -> Failed | None:
    """Remove what the visits left, and the disk's folder that they made; why that failed."""
    try:
        remove(folder)
        storage, name = open_storage(storage_path)
        if new and storage.is_disk:
            with suppress(OSError):  # somebody has begun to use it
                os.rmdir(name)
    except Exception as error:
        return Failed.of(error)
    return None


PART = Check(50, judge, look)
