"""Models on object storage: fetched once by each machine, and found again while they are the same.

What loads models opens files. A folder in the user's cache has those of the storage's folder that a
model is loaded from; it is named by their sizes and versions, so what is changed there is fetched
anew, and a folder that has its name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from fsspec.callbacks import Callback

from raysynth.errors import ModelError, StorageError
from raysynth.storage.cache import cache_folder, make_cache
from raysynth.storage.files import Storage, open_storage
from raysynth.storage.versions import said_hash, said_time
from raysynth.terminal import clipped, masked, shown

KIND = "models"
"""Their folder in the cache."""
READ = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""How the files end that models are loaded from; the rest, such as pickled weights, stays there."""
HEADS = ("model_index.json", "config.json")
"""What lies in the folder of a model: one of parts, or any other."""
AT_ONCE = 4
LARGE = 50e6
"""Bytes from which on fetching is said."""
SAID_EVERY = 10.0
"""Seconds between two words of it."""


def located(name: str, key: str = "base.name") -> str:
    """What is opened for a model's name: a path, of a URI that of its mirror, or a hub id.

    Parameters
    ----------
    key : the knob that names it, for messages.

    Raises
    ------
    ModelError
        A URI of a scheme that cannot be opened, or where nothing of a model is.
    StorageError
        The storage is away or refuses.
    """
    if "://" not in name or name.startswith("hf://"):  # the hub's are named without it
        return os.path.expanduser(name)
    return _mirrored(name.rstrip("/"), key)


@cache
def _mirrored(uri: str, key: str) -> str:
    """The path of what is at a URI, fetched if it is not here; asked once in a process."""
    try:
        storage, root = open_storage(uri)
    except (ValueError, ImportError) as error:
        raise ModelError(
            f"{key}: {masked(uri)} cannot be opened ({clipped(str(error))}). Fix: a scheme that "
            "is installed, such as s3:// with `pip install 'raysynth[s3]'`"
        ) from None
    if storage.is_disk:
        return root
    storage.invalidate_cache()  # another process, or this one, may have written a base there
    found = _listed(storage, root)
    if not found:
        raise ModelError(
            f"{key}: no model at {masked(uri)}; expected a folder with {' or '.join(HEADS)}, or a "
            ".safetensors file. Fix: check the URI, and what its credentials may list"
        )
    home = cache_folder() / KIND / f"{Path(root).name}-{_print(uri, found)}"
    single = [*found] == [root]
    if not home.is_dir():
        make_cache(KIND)
        with FileLock(f"{home}.lock"):
            if not home.is_dir():  # another process has fetched it meanwhile
                _fetch(storage, uri, root, found, home)
    return str(home / Path(root).name if single else home)


def _listed(storage: Storage, root: str) -> dict[str, Mapping[str, Any]]:
    """The files that a model is loaded from, by path, with what the storage says of them.

    Nothing where there is no model: a bucket of anything else is not listed whole, nor fetched.
    """
    if root.endswith(".safetensors"):
        return {root: storage.info(root)} if storage.exists(root) else {}
    heads = [name for name in HEADS if storage.exists(f"{root}/{name}")]
    if not heads:
        return {}
    parted = heads[0] == HEADS[0]  # then weights beside the parts' folders are another program's
    return {
        str(path): about
        for path, about in sorted(storage.find(root, detail=True).items())
        if path.endswith(READ)
        and not (parted and path.endswith(READ[0]) and "/" not in path[len(root) + 1 :])
    }


def _print(uri: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """What is another for other files, in few characters."""
    told = [
        (path, about["size"], said_hash(about) or said_time(about)) for path, about in found.items()
    ]
    return hashlib.sha256(json.dumps([uri, told]).encode()).hexdigest()[:16]


def _fetch(
    storage: Storage, uri: str, root: str, found: Mapping[str, Mapping[str, Any]], home: Path
) -> None:
    """Bring files to a folder that is there whole or not at all."""
    parts = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    told = _Told(masked(uri), sum(int(about["size"]) for about in found.values()))

    def get(path: str) -> None:
        place = parts / (path.removeprefix(root).lstrip("/") or Path(root).name)
        if not place.resolve().is_relative_to(parts.resolve()):
            raise ModelError(f"{masked(uri)}: {shown(path)} leaves the folder. Fix: rename it")
        place.parent.mkdir(parents=True, exist_ok=True)
        storage.get_file(path, str(place), callback=told)
        if (size := place.stat().st_size) != found[path]["size"]:
            raise StorageError(
                f"{masked(uri)}: {clipped(shown(path))} has {found[path]['size']:,} bytes, {size:,}"
                " came. Fix: the same command tries again; files must not change meanwhile"
            )

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(get, found):
                pass
        parts.rename(home)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


class _Told(Callback):
    """Says on stderr how much has come, where it is much."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__()
        self._what, self._total, self._done = what, total, 0
        self._said = time.monotonic()
        if total >= LARGE:
            self._say(f"fetching {what}, {total / 1e9:.2f} GB")

    def relative_update(self, inc: int = 1) -> None:
        """Some more bytes."""
        self._done += inc
        now = time.monotonic()
        if self._total >= LARGE and now - self._said > SAID_EVERY:
            self._said = now
            self._say(f"{self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB of {self._what}")

    @staticmethod
    def _say(words: str) -> None:
        print(f"raysynth: {words}", file=sys.stderr, flush=True)
