"""The run's storage from every node: written, read, listed, deleted, and renamed on a disk.

Nothing else is asked of it by a run: an object store publishes where it wrote, without a copy.
"""

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
KEPT = "place/kept.json"
"""The file of a visit that stays until the driver has seen it."""


def folder_of(config: Config, visit: str) -> str:
    """Folder or URI that one examination writes to and removes."""
    return f"{config.storage_path.rstrip('/')}/{PREFIX}{visit}"


def look(config: Config, visit: str) -> dict[str, Any]:
    """Write two files, delete one, read and list what stays; on a disk rename its folder first."""
    require_filesystem(config.storage_path)
    check_apart(config)
    start, own = time.monotonic(), uuid.uuid4().hex[:12]
    folder = f"{folder_of(config, visit)}/{own}"
    storage, name = open_storage(config.storage_path, patience=0)
    new = not storage.exists(name)
    work = f"{folder}/work" if storage.is_disk else f"{folder}/place"
    try:
        for file in ("kept", "deleted"):
            write_atomic(f"{work}/{file}.json", b'{"visit": "%s"}' % own.encode(), 0)
        remove(f"{work}/deleted.json")
        if storage.is_disk:  # as a stage is published there
            move(work, f"{folder}/place")
        read, found = read_json(f"{folder}/{KEPT}", 0), sorted(sizes_below(folder))
    except FileNotFoundError as error:
        raise ConfigError(
            f"storage_path: {config.storage_path} cannot be written ({error}). Fix: make the "
            "bucket or mount the disk, or name another with storage_path="
        ) from None
    if read != {"visit": own} or found != [KEPT]:
        raise ConfigError(
            f"storage_path: {config.storage_path} does not give back what was written: got "
            f"{str(read)[:60]} and the files {', '.join(found)[:200]}, expected {KEPT} "
            "alone. Fix: a storage whose listings are up to date (no cache between)"
        )
    seconds = time.monotonic() - start
    return {"own": own, "seconds": seconds, "new": new, "renamed": storage.is_disk}


def judge(scene: Scene) -> Iterator[Finding]:
    """Whether the driver sees what every node wrote; then all of it is removed."""
    config, seen = scene.config, scene.of("storage")
    if not seen:
        return
    folder = folder_of(config, scene.visit)
    try:
        there = sizes_below(folder)
        apart = [p for p, facts in seen.items() if f"{facts['own']}/{KEPT}" not in there]
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
        renamed = ", renamed" if any(facts["renamed"] for facts in seen.values()) else ""
        yield Finding(
            OK,
            f"{config.storage_path}: written, read, listed{renamed} and deleted "
            f"{on(scene, len(seen))}, in {slowest:.2f} s at most",
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
