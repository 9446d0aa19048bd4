"""One run's folder on any filesystem: manifest, skipping, resuming, whole outputs or none.

A stage is built in `<run>/.partial/<stage>-<digest>/`, which survives a kill, and is moved to its
place when it is complete; the manifest names it last. Readers trust only what the manifest names.
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

    def __init__(self, config: Config) -> None:
        """Open or create the folder; raises ConfigError when it cannot be written."""
        self.config = config
        self.root = f"{config.storage_path.rstrip('/')}/{config.name}"
        try:
            self.filesystem, self._root = fsspec.core.url_to_fs(self.root)
            self.filesystem.makedirs(self._root, exist_ok=True)
            self._write(
                "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            )
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(
                f"storage_path: cannot write to {self.root} ({error}); expected a folder or URI "
                "that this user may write. Fix: storage_path=/another/folder, or install the "
                "filesystem's package (s3fs, gcsfs)"
            ) from None

    def path(self, *parts: str) -> str:
        """Absolute path or URI of something in the run's folder."""
        return "/".join((self.root, *parts))

    def manifest(self) -> dict[str, Any]:
        """What has been finished: `{"stages": {name: {...}}}`."""
        if not self.filesystem.exists(f"{self._root}/manifest.json"):
            return {"stages": {}}
        return json.loads(self.filesystem.cat_file(f"{self._root}/manifest.json"))

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[str], dict[str, Any]],
    ) -> Stage:
        """Run a stage unless its inputs are unchanged.

        Parameters
        ----------
        inputs : everything the outputs depend on, JSON-able; its digest decides on skipping.
        build : fills the working folder it is given (kept over kills for the same digest) and
            returns facts for the manifest, such as `rows`.
        """
        digest = digest_of({"stage": name, "inputs": inputs})
        record = self.manifest()["stages"].get(name)
        target = f"{self._root}/{FOLDERS[name]}"
        if record and record["digest"] == digest and self.filesystem.exists(target):
            return Stage(
                name, self.path(FOLDERS[name]), digest, record["seconds"], record["facts"], True
            )
        work = f".partial/{name}-{digest}"
        self._drop_stale(name, work)
        self.filesystem.makedirs(f"{self._root}/{work}", exist_ok=True)
        spent = self._spent(work)
        start = time.time()
        try:
            facts = build(self.path(work))
        finally:
            seconds = spent + time.time() - start
            if self.filesystem.exists(f"{self._root}/{work}"):
                self._write(f"{work}/.seconds", str(seconds))
        self._publish(work, target)
        self._record(name, digest, dict(inputs), target, seconds, facts)
        return Stage(name, self.path(FOLDERS[name]), digest, seconds, facts, False)

    def _spent(self, work: str) -> float:
        path = f"{self._root}/{work}/.seconds"
        return float(self.filesystem.cat_file(path)) if self.filesystem.exists(path) else 0.0

    def _drop_stale(self, name: str, work: str) -> None:
        partial = f"{self._root}/.partial"
        if not self.filesystem.exists(partial):
            return
        for path in self.filesystem.ls(partial, detail=False):
            folder = path.rstrip("/").rsplit("/", 1)[1]
            if folder.rsplit("-", 1)[0] == name and folder != work.rsplit("/", 1)[1]:
                self.filesystem.rm(path, recursive=True)

    def _publish(self, work: str, target: str) -> None:
        """Move the finished working folder to its place; the manifest, written after, vouches."""
        if self.filesystem.exists(target):
            self.filesystem.rm(target, recursive=True)
        seconds = f"{self._root}/{work}/.seconds"
        if self.filesystem.exists(seconds):
            self.filesystem.rm(seconds)
        self.filesystem.mv(f"{self._root}/{work}", target, recursive=True)

    def _record(
        self,
        name: str,
        digest: str,
        inputs: dict[str, Any],
        target: str,
        seconds: float,
        facts: dict[str, Any],
    ) -> None:
        manifest = self.manifest()
        outputs = sorted(
            path.removeprefix(self._root).lstrip("/") for path in self.filesystem.find(target)
        )
        manifest["config_digest"] = self.config.digest()
        manifest["stages"][name] = {
            "digest": digest,
            "inputs": inputs,
            "outputs": outputs,
            "rows": facts.get("rows"),
            "seconds": round(seconds, 2),
            "facts": facts,
            "versions": versions(),
        }
        self._write("manifest.json", json.dumps(manifest, indent=1, default=str))

    def _write(self, name: str, text: str) -> None:
        write_atomic(f"{self.root}/{name}", text.encode())


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file or nothing: rename on disks; an object store's PUT is already atomic."""
    filesystem, name = fsspec.core.url_to_fs(path)
    if "file" in filesystem.protocol:
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
