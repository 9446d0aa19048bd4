"""One run's folder on any filesystem: manifest, skipping, resuming, whole outputs or none.

A stage is built in `<run>/.partial/<stage>-<digest>/`, which survives a kill, and is moved to its
place when it is complete; the manifest names it last. Readers trust only what the manifest names.

Runs of one experiment may keep their stages in a folder they share, `<shared>/<stage>-<digest>/`:
what two runs have in common is done once. A record beside the folder, written last, vouches for it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fsspec
import yaml

from raysynth.config import Config, digest_of
from raysynth.errors import ConfigError

FOLDERS = {
    "ingest": "real",
    "clustering": "clusters",
    "finetune": "adapters",
    "synthesis": "synthetic",
    "selection": "selection",
    "references": "references",
    "search": "search",
    "classification": "classifier",
    "report": "report",
}
PACKAGES = ("raysynth", "torch", "ray", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Stage:
    """A finished stage: its outputs' folder and what the manifest says of it."""

    name: str
    path: str
    digest: str
    seconds: float
    facts: dict[str, Any]
    skipped: bool


class Run:
    """A run's folder `<storage_path>/<name>/`; every room asks it for paths."""

    def __init__(self, config: Config, shared: str | None = None) -> None:
        """Open or create the folder; raises ConfigError when it cannot be written.

        `shared`: folder or URI on the same filesystem where stages are kept; None: the run's own.
        """
        self.config = config
        self.root = f"{config.storage_path.rstrip('/')}/{config.name}"
        self.shared = shared
        try:
            self.filesystem, self._root = fsspec.core.url_to_fs(self.root)
            self.filesystem.makedirs(self._root, exist_ok=True)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomic(self.path("config.yaml"), text.encode())
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                f"storage_path: cannot write to {self.root} ({error}); expected a folder or URI "
                "that this user may write. Fix: storage_path=/another/folder, or install the "
                "filesystem's package (s3fs, gcsfs)"
            ) from None

    def path(self, *parts: str) -> str:
        """Absolute path or URI of something in the run's folder."""
        return "/".join((self.root, *parts))

    def folder(self, stage: str) -> str:
        """Path or URI of a finished stage's outputs."""
        digest = self.manifest()["stages"][stage]["digest"] if self.shared else ""
        return self._place(stage, digest)

    def manifest(self) -> dict[str, Any]:
        """What has been finished: `{"stages": {name: {...}}}`."""
        return read_json(self.path("manifest.json")) or {"stages": {}}

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[str], dict[str, Any]],
    ) -> Stage:
        """Run a stage unless its inputs are unchanged.

        Parameters
        ----------
        name : a key of `FOLDERS`, or `<key>/<variant>` where a run has several of a stage; the
            variant's name does not enter the digest.
        inputs : everything the outputs depend on, JSON-able; its digest decides on skipping.
        build : fills the working folder it is given (kept over kills for the same digest) and
            returns facts for the manifest, such as `rows`.
        """
        digest = stage_digest(name, inputs)
        place = self._place(name, digest)
        record = self._recorded(name, digest)
        if record is not None:
            self._note(name, record)
            return Stage(name, place, digest, record["seconds"], record["facts"], True)
        self._drop_stale(name, digest)
        work = f"{self.shared or self.root}/.partial/{shared_name(name, digest)}"
        self.filesystem.makedirs(self._inside(work), exist_ok=True)
        spent = self._spent(work)
        start = time.time()
        try:
            facts = build(work)
        finally:
            seconds = spent + time.time() - start
            if self.filesystem.exists(self._inside(work)):
                write_atomic(f"{work}/.seconds", str(seconds).encode())
        self._publish(work, place)
        record = {
            "digest": digest,
            "inputs": dict(inputs),
            "outputs": self._outputs(place),
            "rows": facts.get("rows"),
            "seconds": round(seconds, 2),
            "facts": facts,
            "versions": versions(),
        }
        if self.shared:
            write_atomic(f"{place}.json", _json(record))
        self._note(name, record)
        return Stage(name, place, digest, seconds, facts, False)

    def _place(self, name: str, digest: str) -> str:
        """Where a finished stage lies."""
        if self.shared:
            return f"{self.shared}/{shared_name(name, digest)}"
        kind, _, variant = name.partition("/")
        return self.path(*(["variants", variant] if variant else []), FOLDERS[kind])

    def _recorded(self, name: str, digest: str) -> dict[str, Any] | None:
        """The record of a stage that is finished and there."""
        place = self._place(name, digest)
        if self.shared:
            return read_json(f"{place}.json")
        record: dict[str, Any] | None = self.manifest()["stages"].get(name)
        there = (
            record and record["digest"] == digest and self.filesystem.exists(self._inside(place))
        )
        return record if there else None

    def _spent(self, work: str) -> float:
        return float(read_json(f"{work}/.seconds") or 0.0)

    def _drop_stale(self, name: str, digest: str) -> None:
        """Half work for other inputs; in a shared folder it may be another run's, and stays."""
        partial = f"{self._root}/.partial"
        if self.shared or not self.filesystem.exists(partial):
            return
        for path in self.filesystem.ls(partial, detail=False):
            folder = path.rstrip("/").rsplit("/", 1)[1]
            if folder.rsplit("-", 1)[0] == stage_kind(name) and folder != shared_name(name, digest):
                self.filesystem.rm(path, recursive=True)

    def _publish(self, work: str, place: str) -> None:
        """Move the finished working folder to its place; the record, written after, vouches."""
        source, target = self._inside(work), self._inside(place)
        self.filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if self.filesystem.exists(target):
            self.filesystem.rm(target, recursive=True)
        if self.filesystem.exists(f"{source}/.seconds"):
            self.filesystem.rm(f"{source}/.seconds")
        self.filesystem.mv(source, target, recursive=True)

    def _outputs(self, place: str) -> list[str]:
        """Files of a finished stage, relative to the folder that holds the stages."""
        root = self._inside(self.shared or self.root)
        found = self.filesystem.find(self._inside(place))
        return sorted(path.removeprefix(root).lstrip("/") for path in found)

    def _note(self, name: str, record: Mapping[str, Any]) -> None:
        """Name a stage in the run's manifest."""
        manifest = self.manifest()
        if manifest["stages"].get(name) == record:
            return
        manifest["config_digest"] = self.config.digest()
        manifest["stages"][name] = record
        write_atomic(self.path("manifest.json"), _json(manifest))

    def _inside(self, path: str) -> str:
        """A path or URI as the filesystem names it."""
        return str(fsspec.core.url_to_fs(path)[1])


def stage_digest(name: str, inputs: Mapping[str, Any]) -> str:
    """What a stage's outputs are a function of."""
    return digest_of({"stage": stage_kind(name), "inputs": inputs})


def shared_name(name: str, digest: str) -> str:
    """A stage's folder where runs share stages: the same for every variant of equal digest."""
    return f"{stage_kind(name)}-{digest}"


def stage_kind(name: str) -> str:
    """A stage's name without its variant."""
    return name.partition("/")[0]


def read_json(path: str) -> Any:
    """A JSON file's value, or None when there is no such file."""
    filesystem, name = fsspec.core.url_to_fs(path)
    return json.loads(filesystem.cat_file(name)) if filesystem.exists(name) else None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode()


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file or nothing: rename on disks; an object store's PUT is already atomic."""
    filesystem, name = fsspec.core.url_to_fs(path)
    if "file" in filesystem.protocol:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        temporary = f"{name}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, name)
    else:
        filesystem.pipe_file(name, data)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
