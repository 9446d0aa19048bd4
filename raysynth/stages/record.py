"""A finished stage's record: what was made, of which files, by which versions; and where it lies.

A run's manifest holds the records of its stages by name, and may say where runs share theirs.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Container, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from raysynth.errors import DataError
from raysynth.stages.graph import stage_kind
from raysynth.storage.files import read_json
from raysynth.terminal import masked

RECORDS = ".records"
MANIFEST = "manifest.json"
SHARED = "shared"
"""Key of the manifest: folder or URI where the run's stages lie, if that is not its own."""
PACKAGES = ("raysynth", "torch", "ray", "diffusers", "transformers", "peft")


def real_stage(stages: Container[str]) -> str:
    """The stage whose table of photographs the others read, among those that a run has.

    A grouping method's, if there is one: its groups are the run's.
    """
    return "grouping" if "grouping" in stages else "ingest"


def in_order(stages: Mapping[str, Any], kinds: Iterable[str]) -> dict[str, Any]:
    """Records of stages in the order of the method's `kinds`, whichever was made first."""
    place = {kind: number for number, kind in enumerate(kinds)}
    last = len(place)  # of another version's stages
    return dict(sorted(stages.items(), key=lambda item: place.get(stage_kind(item[0]), last)))


def shared_name(name: str, digest: str) -> str:
    """A stage's folder where runs share stages: the same for every variant of equal digest."""
    return f"{stage_kind(name)}-{digest}"


def own_name(name: str, folders: Mapping[str, str], digest: str = "") -> str:
    """A stage's folder below its run's own; `digest`: in its name, where no folder is renamed."""
    kind, _, variant = name.partition("/")
    folder = f"{folders[kind]}-{digest}" if digest else folders[kind]
    return f"variants/{variant}/{folder}" if variant else folder


def recorded_folder(
    name: str, record: Mapping[str, Any], folders: Mapping[str, str], *, shared: bool
) -> str:
    """Where a finished stage lies, below the folder of all stages.

    The record says it; of records of before, which do not, it is known.
    """
    if folder := record.get("folder"):
        return str(folder)
    return shared_name(name, record["digest"]) if shared else own_name(name, folders)


def is_manifest(value: Any) -> bool:
    """Whether a file's JSON is a manifest of stages' records."""
    stages = value.get("stages") if isinstance(value, dict) else None
    return (
        isinstance(stages, dict)
        and isinstance(value.get(SHARED, ""), str)
        and all(is_record(record) for record in stages.values())
    )


def read_manifest(root: str) -> dict[str, Any] | None:
    """The manifest of the run in a folder or URI; None: there is none yet.

    Raises DataError where the file is no manifest.
    """
    manifest = read_json(f"{root}/{MANIFEST}")
    if manifest is not None and not is_manifest(manifest):
        raise DataError(
            f"{masked(root)}/{MANIFEST} is no manifest of a run. Fix: run it again: what is "
            "finished is known by its records"
        )
    return None if manifest is None else dict(manifest)


def is_record(value: Any) -> bool:
    """Whether a value has what a stage's record is asked for."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and isinstance(value.get("facts"), dict)
        and isinstance(value.get("seconds"), int | float)
        and 0 <= value["seconds"] < float("inf")
        and _all_are(int, value.get("sizes", {}))
        and _all_are(str, value.get("sha256", {}))
        and _is_below(value.get("folder", "x"))
    )


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(each, kind) for each in values.values())


def _is_below(folder: Any) -> bool:
    """Whether a record's folder is a name below the folder of stages, and leads nowhere else."""
    return (
        isinstance(folder, str)
        and re.fullmatch(r"[^\\\0]+", folder) is not None
        and not {"", ".", ".."} & set(folder.split("/"))
    )


def as_json(value: Any) -> bytes:
    """A record or a manifest as it is written."""
    return json.dumps(value, indent=1, default=str).encode()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
