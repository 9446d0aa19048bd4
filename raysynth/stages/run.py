"""One run's folder on any filesystem: manifest, skipping, resuming, whole outputs or none.

On a disk a stage is built in `<run>/.partial/<stage>-<digest>/`, which survives a kill. When it is
complete, its record (what was made, of how many bytes and which SHA-256) is written to
`<run>/.records/`, the folder is moved to its place, and the manifest names it last. A run that
finds a recorded stage not yet moved, or moved and not yet named, goes on from there.

An object store has no folders to be moved: there a stage is built where it stays, in a folder with
its digest in the name, and is finished by its record. Readers trust only what the manifest names,
and files that are not as their record says are made again.

Runs of one experiment may keep their stages in a folder they share, `<shared>/<stage>-<digest>/`:
what two runs have in common is done once. A record beside the folder, written last, vouches for it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from raysynth.errors import ConfigError, DataError, StorageError
from raysynth.stages.attempts import FACTS, NOTES, Taken, counted, made_in, taken_before
from raysynth.stages.graph import stage_digest
from raysynth.stages.record import (
    MANIFEST,
    SHARED,
    as_json,
    in_order,
    is_manifest,
    is_record,
    real_stage,
    versions,
)
from raysynth.stages.shelf import Shelf
from raysynth.stages.stage import Done
from raysynth.storage.faults import may_pass
from raysynth.storage.files import (
    make_folder,
    misfits,
    move,
    open_storage,
    read_json,
    remove,
    remove_files,
    sweep,
    write_atomic,
)
from raysynth.storage.hashes import hashes_below, take_notes
from raysynth.terminal import masked

BROKEN = ".broken"
CONFIG = "config.yaml"
"""The configuration of a run, as it was resolved when the run began."""
NAMED = 5
"""Damaged files that are said by name; the others are counted."""


class Run:
    """A run's folder `<storage_path>/<name>/`; every room asks it for paths."""

    def __init__(
        self,
        config: Any,
        folders: Mapping[str, str],
        shared: str | None = None,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        """Open or create the folder; raises ConfigError when it cannot be written.

        `folders`: stage -> its folder below the run's. `shared`: folder or URI on the same
        filesystem where stages are kept; None: the run's own. `hold`: keeps other drivers from the
        run, called before anything is written over.
        """
        self.config, self.folders = config, folders
        self.root = config.root
        self.shared = shared
        self.say: Callable[[str], None] = lambda text: None
        """Is told, a line each, of files that are not what they should be."""
        self.held: Callable[[], None] = lambda: None
        """Raises where the run is another driver's by now."""
        self._writing = threading.Lock()  # of the manifest: two stages may be at work
        try:
            self.filesystem, self._root = open_storage(self.root, patience=0)
            self.filesystem.makedirs(self._root, exist_ok=True)
            hold()
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_atomic(self.path(CONFIG), text.encode(), patience=0)
        except StorageError as error:
            if may_pass(error):
                raise  # the same command works later
            raise self._unwritable(error.__cause__ or error) from None
        except (OSError, ValueError, ImportError) as error:
            raise self._unwritable(error) from None
        self.filesystem, self._root = open_storage(self.root)
        self._shelf = Shelf(self.root, folders, shared)

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
        """Path or URI of a finished stage's outputs; where each generator has its own, of none."""
        record = self.manifest()["stages"].get(stage)
        return self._shelf.at(stage, record) if record else self.path(self.folders[stage])

    @property
    def real(self) -> str:
        """Path or URI of the table of photographs, in the run's groups."""
        return self.folder(real_stage(self.manifest()["stages"]))

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
        if is_manifest(manifest):
            return dict(manifest)
        self.say(f"{path} cannot be read: kept as {MANIFEST}{BROKEN}, and made of what is there")
        self.filesystem.cp_file(f"{self._root}/{MANIFEST}", f"{self._root}/{MANIFEST}{BROKEN}")
        remove(path)  # a folder, it could not be written over
        write_atomic(path, as_json({"stages": {}}))
        return {"stages": {}}

    def name_only(self, wanted: Callable[[str], bool]) -> None:
        """Other stages leave the manifest; one that lies there whole is found again."""
        with self._writing:
            manifest = self.manifest()
            own = {name: each for name, each in manifest["stages"].items() if wanted(name)}
            if len(own) < len(manifest["stages"]):
                write_atomic(self.path(MANIFEST), as_json({**manifest, "stages": own}))

    def drop(self, path: str) -> bool:
        """Delete a file of a stage, which makes it again; False: it is none of this run's."""
        own = path.startswith((f"{self.root}/", f"{self._shelf.home}/"))
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
        self.held()
        digest = stage_digest(name, inputs)
        record = self._recorded(name, digest) or self._found(name, digest)
        if record is not None:
            self._note(name, record)
            return self._done(name, record, skipped=True)
        self._drop_stale(name, digest)
        work = self._shelf.work(name, digest)
        facts, taken = self._built(work, build)
        self.held()
        record = {
            "digest": digest,
            "inputs": dict(inputs),
            "rows": facts.get("rows"),
            **taken.recorded,
            "facts": facts,
            "versions": versions(),
        }
        place = self._shelf.place(name, digest)
        record = self._publish(work, place, record)
        self._note(name, record)
        if not self._shelf.renames:
            self._drop_stale(name, digest)
        return self._done(name, record, skipped=False)

    def _done(self, name: str, record: Mapping[str, Any], *, skipped: bool) -> Done:
        place, hashes = self._shelf.at(name, record), record.get("sha256", {})
        facts, seconds = record["facts"], record["seconds"]
        return Done(name, place, record["digest"], seconds, facts, skipped, hashes)

    def _built(self, work: str, build: Callable[[str], dict[str, Any]]) -> tuple[Any, Taken]:
        """The stage's facts and what it took, with what attempts took that were cut off."""
        with self._writing:
            sweep(self.root, deep=False)
        sweep(work)
        make_folder(work)
        if (made := made_in(work)) is not None:
            return made, taken_before(work)
        with counted(work) as taken:
            facts = build(work)
        write_atomic(f"{work}/{FACTS}", as_json(facts))  # a kill from here on costs no work
        return facts, taken

    def _recorded(self, name: str, digest: str) -> dict[str, Any] | None:
        """The record of a stage that is named as finished, and is there as it was."""
        if self.shared:
            record = self._read_record(self._shelf.voucher(self._shelf.place(name, digest)))
        else:
            record = self.manifest()["stages"].get(name)
        if record is None or record["digest"] != digest:
            return None
        place = self._shelf.at(name, record)
        if self._whole(place, record):
            return record
        if not self._shelf.renames:  # what is made again must not take the rest for its own work
            self._forget(name, place)
        return None

    def _found(self, name: str, digest: str) -> dict[str, Any] | None:
        """The record of a stage that is complete, but that nothing names: a kill came between."""
        work, place = self._shelf.work(name, digest), self._shelf.place(name, digest)
        record = self._read_record(self._shelf.record(place))
        if record is None or record["digest"] != digest or "sizes" not in record:
            return None
        record = {**record, "folder": self._shelf.relative(place)}
        if self._shelf.renames:
            if not misfits(work, record["sizes"]):  # first: in place may be other inputs' outputs
                self._settle(work, place)
            elif misfits(place, record["sizes"]):
                return None
            remove(work)
        elif self._whole(place, record):
            self._settle(work, place)
        else:
            self._forget(name, place)
            return None
        self._vouch(place, record)
        return record

    def _read_record(self, path: str) -> dict[str, Any] | None:
        """A stage's record; None: there is none, or one that cannot be read."""
        with contextlib.suppress(DataError):
            record = read_json(path)
            if record is None or is_record(record):
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

    def _drop_stale(self, name: str, digest: str) -> None:
        """What other inputs left of a stage; what the manifest names stays until it names this."""
        named = self.manifest()["stages"].get(name)
        self._shelf.drop_stale(name, digest, self._shelf.at(name, named) if named else "")

    def _publish(self, work: str, place: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Record what is in the finished working folder; on a disk, move it to its place."""
        sweep(work)
        sizes, told = take_notes(work)
        sizes = {file: size for file, size in sizes.items() if file not in NOTES}
        folder = self._shelf.relative(place)
        read = {file: size for file, size in sizes.items() if file not in told}
        complete = {
            **record,
            "folder": folder,
            "outputs": sorted(f"{folder}/{file}" for file in sizes),
            "sizes": sizes,
            "sha256": dict(sorted((told | hashes_below(work, read)).items())),
        }
        write_atomic(self._shelf.record(place), as_json(complete))
        self._settle(work, place)
        self._vouch(place, complete)
        return complete

    def _settle(self, work: str, place: str) -> None:
        """Put a recorded stage in its place, without what only a working folder has."""
        remove_files(work, NOTES)
        if self._shelf.renames:
            move(work, place)

    def _vouch(self, place: str, record: Mapping[str, Any]) -> None:
        """Say beside a folder that runs share that it is complete."""
        if voucher := self._shelf.voucher(place):
            write_atomic(voucher, as_json(record))

    def _forget(self, name: str, place: str) -> None:
        """Take a stage out of the manifest, and remove it."""
        self.name_only(lambda each: each != name)
        self._shelf.drop(place)

    def _note(self, name: str, record: Mapping[str, Any]) -> None:
        """Name a stage in the run's manifest."""
        with self._writing:
            manifest = self.manifest()
            if manifest["stages"].get(name) == record:
                return
            manifest["config_digest"] = self.config.digest()
            if self.shared:
                manifest[SHARED] = self.shared
            manifest["stages"][name] = record
            manifest["stages"] = in_order(manifest["stages"], self.folders)
            write_atomic(self.path(MANIFEST), as_json(manifest))
