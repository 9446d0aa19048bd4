"""One run's folder on any filesystem: manifest, skipping, resuming, whole outputs or none.

A stage is built in `<run>/.partial/<stage>-<digest>/`, which survives a kill. When it is complete,
its record (what was made, of how many bytes) is written to `<run>/.records/`, the folder is moved
to its place, and the manifest names it last. A run that finds a recorded stage not yet moved, or
moved and not yet named, goes on from there. Readers trust only what the manifest names, and files
that are not as their record says are made again.

Runs of one experiment may keep their stages in a folder they share, `<shared>/<stage>-<digest>/`:
what two runs have in common is done once. A record beside the folder, written last, vouches for it.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from raysynth.errors import ConfigError, DataError, StorageError
from raysynth.stages.graph import stage_digest, stage_kind
from raysynth.stages.stage import Done
from raysynth.storage.faults import is_away, is_full
from raysynth.storage.files import (
    exists,
    make_folder,
    misfits,
    move,
    open_storage,
    read_json,
    remove,
    sizes_below,
    sweep,
    write_atomic,
)
from raysynth.terminal import masked

RECORDS = ".records"
SECONDS = ".seconds"
BROKEN = ".broken"
MANIFEST = "manifest.json"
CONFIG = "config.yaml"
"""The configuration of a run, as it was resolved when the run began."""
NAMED = 5
"""Damaged files that are said by name; the others are counted."""
PACKAGES = ("raysynth", "torch", "ray", "diffusers", "transformers", "peft")


class Run:
    """A run's folder `<storage_path>/<name>/`; every room asks it for paths."""

    def __init__(self, config: Any, folders: Mapping[str, str], shared: str | None = None) -> None:
        """Open or create the folder; raises ConfigError when it cannot be written.

        `folders`: stage -> its folder below the run's. `shared`: folder or URI on the same
        filesystem where stages are kept; None: the run's own.
        """
        self.config, self.folders = config, folders
        self.root = f"{config.storage_path.rstrip('/')}/{config.name}"
        self.shared = shared
        self.say: Callable[[str], None] = lambda text: None
        """Is told, a line each, of files that are not what they should be."""
        self._writing = threading.Lock()  # of the manifest: two stages may be at work
        try:
            self.filesystem, self._root = open_storage(self.root, patience=0)
            self.filesystem.makedirs(self._root, exist_ok=True)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomic(self.path(CONFIG), text.encode(), patience=0)
        except StorageError as error:
            cause = error.__cause__
            if cause is None or is_away(cause) or is_full(cause):
                raise  # the same command works later
            raise self._unwritable(cause) from None
        except (OSError, ValueError, ImportError) as error:
            raise self._unwritable(error) from None
        self.filesystem, self._root = open_storage(self.root)

    def _unwritable(self, error: BaseException) -> ConfigError:
        missing = isinstance(error, ImportError)
        fix = "install the filesystem's package (s3fs, gcsfs), or " if missing else ""
        return ConfigError(
            f"storage_path: cannot write to {masked(self.root)} ({masked(str(error))}); expected a "
            f"folder or URI that this user may write. Fix: {fix}storage_path=/another/folder"
        )

    def path(self, *parts: str) -> str:
        """Absolute path or URI of something in the run's folder."""
        return "/".join((self.root, *parts))

    def folder(self, stage: str) -> str:
        """Path or URI of a finished stage's outputs."""
        digest = self.manifest()["stages"][stage]["digest"] if self.shared else ""
        return self._place(stage, digest)

    def manifest(self) -> dict[str, Any]:
        """What has been finished: `{"stages": {name: {...}}}`.

        One that cannot be read is kept aside; stages are then known by the records in their
        folders.
        """
        path = self.path(MANIFEST)
        try:
            manifest = read_json(path)
        except DataError:
            manifest = "broken"
        if manifest is None:
            return {"stages": {}}
        if _is_manifest(manifest):
            return dict(manifest)
        self.say(f"{path} cannot be read: kept as {MANIFEST}{BROKEN}, and made of what is there")
        self.filesystem.cp_file(f"{self._root}/{MANIFEST}", f"{self._root}/{MANIFEST}{BROKEN}")
        remove(path)  # a folder, it could not be written over
        write_atomic(path, _json({"stages": {}}))
        return {"stages": {}}

    def drop(self, path: str) -> bool:
        """Delete a file of a stage, which makes it again; False: it is none of this run's."""
        own = path.startswith((f"{self.root}/", f"{self.shared or self.root}/"))
        if own:
            remove(path)
        return own

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[str], dict[str, Any]],
    ) -> Done:
        """Run a stage unless its inputs are unchanged and its outputs whole.

        Parameters
        ----------
        name : a key of `folders`, or `<key>/<variant>` where a run has several of a stage; the
            variant's name does not enter the digest.
        inputs : everything the outputs depend on, JSON-able; its digest decides on skipping.
        build : fills the working folder it is given (kept over kills for the same digest) and
            returns facts for the manifest, such as `rows`.
        """
        digest = stage_digest(name, inputs)
        place = self._place(name, digest)
        work = f"{self.shared or self.root}/.partial/{shared_name(name, digest)}"
        record = self._recorded(name, digest) or self._found(name, digest, work)
        if record is not None:
            self._note(name, record)
            return Done(name, place, digest, record["seconds"], record["facts"], True)
        self._drop_stale(name, digest)
        facts, seconds = self._built(work, build)
        record = {
            "digest": digest,
            "inputs": dict(inputs),
            "rows": facts.get("rows"),
            "seconds": round(seconds, 2),
            "facts": facts,
            "versions": versions(),
        }
        record = self._publish(work, place, record)
        if self.shared:
            write_atomic(f"{place}.json", _json(record))
        self._note(name, record)
        return Done(name, place, digest, seconds, facts, False)

    def _built(self, work: str, build: Callable[[str], dict[str, Any]]) -> tuple[Any, float]:
        """The stage's facts and the seconds it took, with those of attempts that were cut off."""
        with self._writing:
            sweep(self.root, deep=False)
        sweep(work)
        make_folder(work)
        spent = self._spent(work)
        start = time.time()
        try:
            facts = build(work)
        finally:
            seconds = spent + time.time() - start
            with contextlib.suppress(OSError, StorageError):  # a statistic: it hides no error
                if exists(work):
                    write_atomic(f"{work}/{SECONDS}", str(seconds).encode(), patience=0)
        return facts, seconds

    def _place(self, name: str, digest: str) -> str:
        """Where a finished stage lies."""
        if self.shared:
            return f"{self.shared}/{shared_name(name, digest)}"
        kind, _, variant = name.partition("/")
        return self.path(*(["variants", variant] if variant else []), self.folders[kind])

    def _recorded(self, name: str, digest: str) -> dict[str, Any] | None:
        """The record of a stage that is named as finished, and is there as it was."""
        place = self._place(name, digest)
        if self.shared:
            record = self._read_record(f"{place}.json")
        else:
            record = self.manifest()["stages"].get(name)
        named = record is not None and record["digest"] == digest
        return record if named and self._whole(place, record or {}) else None

    def _found(self, name: str, digest: str, work: str) -> dict[str, Any] | None:
        """The record of a stage that is complete, but that nothing names: a kill came between."""
        place = self._place(name, digest)
        record = self._read_record(self._record_path(place))
        if record is None or record["digest"] != digest or "sizes" not in record:
            return None
        if not misfits(work, record["sizes"]):  # first: in its place may be what other inputs left
            move(work, place)
        elif misfits(place, record["sizes"]):
            return None
        remove(work)
        if self.shared:
            write_atomic(f"{place}.json", _json(record))
        return record

    def _read_record(self, path: str) -> dict[str, Any] | None:
        """A stage's record; None: there is none, or one that cannot be read."""
        with contextlib.suppress(DataError):
            record = read_json(path)
            if record is None or _is_record(record):
                return record
        self.say(f"{path} cannot be read: the stage is made again")
        return None

    def _whole(self, place: str, record: Mapping[str, Any]) -> bool:
        """Whether a stage's files are as its record says; names those that are not."""
        faults = misfits(place, record.get("sizes") or {})
        for fault in faults[:NAMED]:
            self.say(f"{fault}: the stage is made again")
        if len(faults) > NAMED:
            self.say(f"{place}: {len(faults) - NAMED} more files are not as they were")
        return not faults

    def _spent(self, work: str) -> float:
        """Seconds of earlier attempts; unreadable, it is a statistic that starts again."""
        try:
            spent = float(read_json(f"{work}/{SECONDS}") or 0.0)
        except (DataError, TypeError, ValueError):
            return 0.0
        return spent if 0.0 <= spent < float("inf") else 0.0

    def _drop_stale(self, name: str, digest: str) -> None:
        """Half work for other inputs; in a shared folder it may be another run's, and stays."""
        partial = f"{self._root}/.partial"
        if self.shared or not self.filesystem.exists(partial):
            return
        self.filesystem.invalidate_cache(partial)
        for path in self.filesystem.ls(partial, detail=False):
            folder = path.rstrip("/").rsplit("/", 1)[1]
            if folder.rsplit("-", 1)[0] == stage_kind(name) and folder != shared_name(name, digest):
                remove(f"{self.root}/.partial/{folder}")

    def _publish(self, work: str, place: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Record what is in the finished working folder, then move it to its place."""
        sweep(work)
        remove(f"{work}/{SECONDS}")
        sizes = sizes_below(work)
        outputs = sorted(f"{self._relative(place)}/{file}" for file in sizes)
        complete = {**record, "outputs": outputs, "sizes": sizes}
        write_atomic(self._record_path(place), _json(complete))
        move(work, place)
        return complete

    def _record_path(self, place: str) -> str:
        return f"{self.shared or self.root}/{RECORDS}/{self._relative(place)}.json"

    def _relative(self, place: str) -> str:
        """A stage's folder relative to the one that holds the stages."""
        return place.removeprefix(self.shared or self.root).lstrip("/")

    def _note(self, name: str, record: Mapping[str, Any]) -> None:
        """Name a stage in the run's manifest."""
        with self._writing:
            manifest = self.manifest()
            if manifest["stages"].get(name) == record:
                return
            manifest["config_digest"] = self.config.digest()
            manifest["stages"][name] = record
            manifest["stages"] = self._ordered(manifest["stages"])
            write_atomic(self.path(MANIFEST), _json(manifest))

    def _ordered(self, stages: Mapping[str, Any]) -> dict[str, Any]:
        """In the order of the method, whichever was made first."""
        place = {kind: number for number, kind in enumerate(self.folders)}
        last = len(place)  # of another version's stages
        return dict(sorted(stages.items(), key=lambda item: place.get(stage_kind(item[0]), last)))


def shared_name(name: str, digest: str) -> str:
    """A stage's folder where runs share stages: the same for every variant of equal digest."""
    return f"{stage_kind(name)}-{digest}"


def _is_manifest(value: Any) -> bool:
    """Whether a file's JSON is a manifest of stages' records."""
    stages = value.get("stages") if isinstance(value, dict) else None
    return isinstance(stages, dict) and all(_is_record(record) for record in stages.values())


def _is_record(value: Any) -> bool:
    """Whether a value has what a stage's record is asked for."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and isinstance(value.get("facts"), dict)
        and isinstance(value.get("seconds"), int | float)
        and 0 <= value["seconds"] < float("inf")
        and isinstance(value.get("sizes", {}), dict)
        and all(isinstance(size, int) for size in value.get("sizes", {}).values())
    )


def _json(value: Any) -> bytes:
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
