"""A folder of folders of images, before a single image is decoded: names, images, captions."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysynth.adapter_runs.captions import captions_of
from raysynth.adapter_runs.settings import TrainConfig, spoken
from raysynth.datasets.files import clipped, open_folder, reaching, require_files, some
from raysynth.datasets.layouts.tree import SUFFIXES, files_below, is_image
from raysynth.datasets.pictures import Unreadable, read_files
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.storage.files import Storage
from raysynth.terminal import shown

EXPECTED = """expected
  FOLDER/<name>/0001.jpg    an adapter for each <name>, e.g. cat/0001.jpg
  FOLDER/<name>/0001.txt    its caption, if it has one of its own"""
LONGEST_NAME = 80
"""Characters of an adapter's name."""


@dataclass(frozen=True)
class Folders:
    """Images of folders, as a data set (`datasets.layout.Dataset`): each folder is a label."""

    path: str
    names: Mapping[str, str]
    """Folder -> adapter, in order."""
    files: tuple[str, ...]
    """Images, relative to `path`, in order."""
    captions: tuple[str, ...]
    """Of each image."""
    own: int
    """Images that have a caption of their own."""

    @property
    def groups(self) -> Groups:
        """A group for each folder."""
        names = tuple(self.names.values())
        return Groups(names, ("",), tuple(self.names), ("",))

    @property
    def label_names(self) -> tuple[str, ...]:
        """The adapters."""
        return self.groups.label_names

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """One, without a name."""
        return self.groups.attribute_names

    @property
    def label_words(self) -> tuple[str, ...]:
        """The folders."""
        return self.groups.label_words

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """None."""
        return self.groups.attribute_words

    @property
    def aligned(self) -> tuple[str, ...]:
        """None."""
        return ()

    def listing(self) -> pa.Table:
        """`id` (= file), `label, attribute, group: int32`, `split` and `caption` of every image."""
        place = {folder: number for number, folder in enumerate(self.names)}
        label = [place[name.partition("/")[0]] for name in self.files]
        return pa.table(
            {
                "id": pa.array(self.files, pa.string()),
                "label": pa.array(label, pa.int32()),
                "attribute": pa.array(np.zeros(len(label), np.int32)),
                "group": pa.array(label, pa.int32()),
                "split": pa.array(["train"] * len(label), pa.string()),
                "caption": pa.array(self.captions, pa.string()),
            }
        )

    @property
    def by_adapter(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Adapter -> its images, and their captions."""
        found: dict[str, tuple[list[str], list[str]]] = {
            name: ([], []) for name in self.names.values()
        }
        for file, caption in zip(self.files, self.captions, strict=True):
            images, captions = found[self.names[file.partition("/")[0]]]
            images.append(file)
            captions.append(caption)
        return {name: (tuple(own), tuple(said)) for name, (own, said) in found.items()}

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded 8-bit RGB image of each row, or why the file cannot be read."""
        return read_files(self.path, rows["id"].to_pylist(), None)


def read_folders(config: TrainConfig) -> Folders:
    """The images of a run, by their names; of the images themselves nothing is read.

    Raises
    ------
    DataError
        It is no folder, an image lies beside the folders or deeper, a folder has too few images,
        two folders would have adapters of one name, or captions cannot be read.
    """
    with reaching(config.images):
        images, others, empty = _listed(config.images)
        names = _names([*dict.fromkeys(name.partition("/")[0] for name in images), *empty])
        _require_images(config, Counter(n.partition("/")[0] for n in images), empty)
        require_files(config.images, images, "the folder", EXPECTED)
        own = captions_of(config.images, images, others)
    said = tuple(own.get(name) or spoken(config.caption, name.partition("/")[0]) for name in images)
    return Folders(config.images, names, tuple(images), said, len(own))


def _listed(path: str) -> tuple[list[str], list[str], list[str]]:
    """Images and other files, relative to a folder, and sub-folders without any image."""
    storage, root = open_folder(path)
    if not storage.isdir(root):
        raise DataError(f"FOLDER: {clipped(path)} is not a folder; {EXPECTED}")
    found = [name for name in sorted(_files(storage, root)) if not _is_hidden(name)]
    images = [name for name in found if is_image(name)]
    if wrong := [name for name in images if name.count("/") != 1]:
        raise DataError(
            f"{clipped(path)}: {some(wrong)}: not right in a folder of its adapter; {EXPECTED}\n"
            "Fix: move the images there, or name the folder above them"
        )
    if not images:
        raise DataError(f"{clipped(path)}: no image (*.{', *.'.join(SUFFIXES)}); {EXPECTED}")
    full = {name.partition("/")[0] for name in images}
    folders = {name.partition("/")[0] for name in found if "/" in name}
    if storage.is_disk:
        folders |= {entry.name for entry in os.scandir(root) if entry.is_dir()}
    empty = sorted(name for name in folders - full if not name.startswith("."))
    return images, [name for name in found if not is_image(name)], empty


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _files(storage: Storage, root: str) -> Iterator[str]:
    if storage.is_disk:
        yield from files_below(root)
        return
    yield from (name.removeprefix(root).lstrip("/") for name in storage.find(root))


def _names(folders: Sequence[str]) -> dict[str, str]:
    """Folder -> adapter, whose name is a file's everywhere; refuses two of one name."""
    found: dict[str, str] = {}
    owners: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(folders):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:LONGEST_NAME]
        if not name:
            raise DataError(
                f"folder {folder!a}: no letter or digit that an adapter could be called by; "
                "expected A-Z, a-z, 0-9. Fix: rename it"
            )
        found[folder] = name
        owners[name.casefold()].append(folder)
    if twice := next((of for of in owners.values() if len(of) > 1), None):
        raise DataError(
            f"folders {', '.join(shown(name) for name in twice)}: their adapters would both be "
            f"called {found[twice[0]]!r}; expected a name for each, upper and lower case alike. "
            "Fix: rename one"
        )
    return found


def _require_images(config: TrainConfig, counts: Mapping[str, int], empty: Sequence[str]) -> None:
    """Refuse folders with too few images."""
    least = config.finetune.min_images
    few = {**dict.fromkeys(empty, 0), **{n: c for n, c in counts.items() if c < least}}
    if few:
        told = some(f"{shown(name)} ({count})" for name, count in sorted(few.items()))
        fewer = f", or finetune.min_images={min(few.values())}" if min(few.values()) else ""
        raise DataError(
            f"{clipped(config.images)}: {len(few)} folder(s) with fewer than {least} image(s): "
            f"{told}; expected at least {least} in each (finetune.min_images). Fix: add images, or "
            f"move the folder elsewhere{fewer}"
        )
