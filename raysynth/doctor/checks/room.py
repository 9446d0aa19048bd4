"""Room on the disks, in memory and in /dev/shm, beside what the plan says that a run takes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysynth.config.config import Config
from raysynth.doctor.check import (
    DRIVER,
    FAIL,
    HERE,
    OK,
    WARN,
    Check,
    Failed,
    Finding,
    Scene,
    on,
    places,
)
from raysynth.storage.files import open_storage

SHM = "/dev/shm"
FULLEST = 0.95
"""Share of a disk in use at which Ray stops to move objects out of its memory
(`RAY_local_fs_capacity_threshold`)."""
GB = 1e9


def look(config: Config, visit: str) -> dict[str, Any]:
    """Free and total bytes of the disks of Ray's and the run's files, of /dev/shm and of memory."""
    import psutil

    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    storage, name = open_storage(config.storage_path)
    memory = psutil.virtual_memory().total
    if (limit := Path("/sys/fs/cgroup/memory.max")).exists() and limit.read_text().strip() != "max":
        memory = min(memory, int(limit.read_text()))
    return {
        "temporary": (temporary, *_usage(temporary)),
        "storage": (name, *_usage(name)) if storage.is_disk else None,
        "shm": _usage(SHM) if os.path.isdir(SHM) else None,
        "memory": memory,
    }


def _usage(path: str) -> tuple[int, int]:
    """Free and total bytes of the disk that a path is on, or would be."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    found = shutil.disk_usage(place)
    return found.free, found.total


def judge(scene: Scene) -> Iterator[Finding]:
    """Where a run would stop for want of room."""
    seen = scene.of("room")
    if not seen:
        return
    faults = [*_temporary(seen), *_stored(scene, seen), *_memory(scene, seen), *_shared(scene)]
    yield from faults
    if not any(fault.mark == FAIL for fault in faults):
        least = min(facts["temporary"][1] for facts in seen.values())
        shm = [facts["shm"][0] for facts in seen.values() if facts["shm"]]
        memory = min(facts["memory"] for facts in seen.values())
        told = f", {min(shm) / GB:,.1f} GB in {SHM}" if shm else ""
        yield Finding(
            OK,
            f"at least {least / GB:,.1f} GB free for Ray's files{told}, {memory / GB:,.1f} GB of "
            f"memory {on(scene, len(seen))}",
        )


def _temporary(seen: Mapping[str, Any]) -> Iterator[Finding]:
    full = {
        place: facts["temporary"]
        for place, facts in seen.items()
        if facts["temporary"][1] < (1 - FULLEST) * facts["temporary"][2]
    }
    for place, (path, free, total) in full.items():
        yield Finding(
            FAIL,
            f"{place}: the disk of {path} is {1 - free / total:.0%} full, and Ray keeps no objects "
            f"on one that is over {FULLEST:.0%}",
            f"make room, or RAY_TMPDIR=/a/larger/disk before `ray start` ({free / GB:,.1f} GB "
            "are free)",
            passing=True,
        )


def _stored(scene: Scene, seen: Mapping[str, Any]) -> Iterator[Finding]:
    facts = seen.get(HERE) or seen.get(DRIVER)
    if isinstance(scene.plan, Failed) or facts is None or facts["storage"] is None:
        return
    path, free, _ = facts["storage"]
    need = sum(scene.plan.storage_gb.values())
    if free < need * GB:
        yield Finding(
            FAIL,
            f"{path}: {free / GB:,.2f} GB are free, a whole run writes {need:,.2f} GB",
            "make room there, or another storage_path",
            passing=True,
        )


def _memory(scene: Scene, seen: Mapping[str, Any]) -> Iterator[Finding]:
    """The driver decodes the classifiers' images; locally it shares with store and workers."""
    facts = seen.get(HERE) or seen.get(DRIVER)
    if isinstance(scene.plan, Failed) or facts is None:
        return
    host, workers = scene.plan.host_gb, scene.config.resources.workers
    need = host["driver"]
    if scene.local:
        need += host["object store"] + workers * host["worker"]
    if facts["memory"] < need * GB:
        yield Finding(
            FAIL,
            f"{HERE if scene.local else DRIVER}: {facts['memory'] / GB:,.1f} GB of memory, a run "
            f"needs {need:,.1f} GB for its images alone (`raysynth plan`: host memory)",
            "a machine with more, or a smaller classifier.image_size",
        )


def _shared(scene: Scene) -> Iterator[Finding]:
    """Object stores that are smaller than the images which classifiers share."""
    if isinstance(scene.plan, Failed):
        return
    need = scene.plan.host_gb["object store"]
    if scene.local:
        yield from _local_store(scene, need)
        return
    small = [
        node.name
        for node in scene.nodes
        if _trains(scene, node.resources) or node.name == scene.driver_node
        if node.resources.get("object_store_memory", 0.0) < need * GB
    ]
    if small:
        yield Finding(
            WARN,
            f"{places(small)}: Ray's object store is smaller than the {need:,.1f} GB of the "
            "classifiers' images, which then go to disk and back",
            "a node with more memory and /dev/shm (docker: --shm-size), or `ray start "
            "--object-store-memory`",
        )


def _local_store(scene: Scene, need: float) -> Iterator[Finding]:
    asked = scene.config.resources.object_store_memory
    if asked < need * GB:
        yield Finding(
            WARN,
            f"resources.object_store_memory is {asked / GB:,.2f} GB, the classifiers' images take "
            f"{need:,.2f} GB and would go to disk and back",
            f"resources.object_store_memory={_rounded_up(need)}",
        )
    facts: Sequence[Any] = [seen for seen in scene.of("room").values() if seen["shm"]]
    if facts and facts[0]["shm"][0] < asked:
        yield Finding(
            WARN,
            f"{SHM} has {facts[0]['shm'][0] / GB:,.2f} GB free, resources.object_store_memory asks "
            f"for {asked / GB:,.2f} GB: Ray takes a disk instead, which is slow",
            "a larger one (docker: --shm-size), or a lower resources.object_store_memory",
        )


def _rounded_up(gigabytes: float) -> int:
    return int(gigabytes * 100 + 1) * 10_000_000


def _trains(scene: Scene, resources: Mapping[str, float]) -> bool:
    kind = "GPU" if any(one.gpus for one in scene.config.asked) else "CPU"
    return resources.get(kind, 0.0) > 0


PART = Check(60, judge, look)
