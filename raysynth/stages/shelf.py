"""Where a run's stages lie: while they are built, when they are finished; what vouches for them.

On disks a stage is built aside and renamed. Elsewhere nothing can be renamed without copying it: a
stage is built where it stays, in a folder with its digest in the name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from raysynth.stages.graph import stage_kind
from raysynth.stages.record import RECORDS, own_name, recorded_folder, shared_name
from raysynth.storage.files import open_storage, remove, remove_files

PARTIAL = ".partial"
DIGEST = r"[0-9a-f]{16}"


class Shelf:
    """The folder of a run's stages, or the one that several runs share."""

    def __init__(self, root: str, folders: Mapping[str, str], shared: str | None = None) -> None:
        """`root`: the run's folder; `folders`: stage -> its folder below; `shared`: instead."""
        self.shared, self.folders = bool(shared), folders
        self.home = (shared or root).rstrip("/")
        self.storage = open_storage(self.home)[0]
        self.renames = self.storage.is_disk

    def at(self, name: str, record: Mapping[str, Any]) -> str:
        """Path or URI of a finished stage's outputs, by its record."""
        folder = recorded_folder(name, record, self.folders, shared=self.shared)
        return f"{self.home}/{folder}"

    def place(self, name: str, digest: str) -> str:
        """Path or URI where a stage is to lie when it is finished."""
        if self.shared:
            return f"{self.home}/{shared_name(name, digest)}"
        return f"{self.home}/{own_name(name, self.folders, '' if self.renames else digest)}"

    def work(self, name: str, digest: str) -> str:
        """Path or URI where a stage is built."""
        if self.renames:
            return f"{self.home}/{PARTIAL}/{shared_name(name, digest)}"
        return self.place(name, digest)

    def relative(self, place: str) -> str:
        """A stage's folder relative to the one that holds the stages."""
        return place.removeprefix(self.home).lstrip("/")

    def record(self, place: str) -> str:
        """Path or URI of the record that says a folder is complete."""
        return f"{self.home}/{RECORDS}/{self.relative(place)}.json"

    def voucher(self, place: str) -> str:
        """Path or URI of the record of a folder that runs share; "" where they share none."""
        return f"{place}.json" if self.shared else ""

    def drop(self, place: str) -> None:
        """Remove a stage: first what vouches for it, then its files."""
        vouching = filter(None, (self.voucher(place), self.record(place)))
        remove_files(self.home, [self.relative(path) for path in vouching])
        remove(place)

    def drop_stale(self, name: str, digest: str, kept: str) -> None:
        """Remove what is left of a stage for other inputs, finished or not.

        Parameters
        ----------
        kept : a place that stays all the same: what a manifest names.

        In a shared folder it may be another run's, and stays.
        """
        if self.shared:
            return
        if self.renames:
            for folder in self._below(f"{self.home}/{PARTIAL}"):
                mine = re.fullmatch(f"{re.escape(stage_kind(name))}-{DIGEST}", folder)
                if mine and folder != shared_name(name, digest):
                    remove(f"{self.home}/{PARTIAL}/{folder}")
            return
        above, _, plain = f"{self.home}/{own_name(name, self.folders)}".rpartition("/")
        for folder in self._below(above):
            mine = re.fullmatch(f"{re.escape(plain)}(-{DIGEST})?", folder)
            if mine and f"{above}/{folder}" not in (kept, self.place(name, digest)):
                self.drop(f"{above}/{folder}")

    def _below(self, folder: str) -> list[str]:
        """Names of what lies in a folder; none where there is no such folder."""
        path = open_storage(folder)[1]
        self.storage.invalidate_cache(path)
        with contextlib.suppress(FileNotFoundError):
            listed = self.storage.ls(path, detail=False)
            return [str(each).rstrip("/").rsplit("/", 1)[-1] for each in listed]
        return []
