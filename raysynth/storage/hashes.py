"""SHA-256 of a folder's files: as those noted it who wrote them, else read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from raysynth.errors import DataError
from raysynth.storage.files import open_storage, read_json, remove_files, sizes_below, write_atomic

NOTE = ".sha256.json"
"""What a writer knows of the files in its folder: name -> SHA-256. No output."""
BLOCK_BYTES = 8 * 2**20
AT_ONCE = 8
"""Files that are read at the same time, each a block in memory."""


def note_hashes(folder: str, hashes: Mapping[str, str]) -> None:
    """Leave word of files in a folder or URI, so that they need not be read back."""
    write_atomic(f"{folder}/{NOTE}", json.dumps(dict(hashes)).encode())


def note_bytes(folder: str, name: str, data: bytes) -> None:
    """The same of the one file of a folder, by what was written."""
    note_hashes(folder, {name: hashlib.sha256(data).hexdigest()})


def take_notes(folder: str) -> tuple[dict[str, int], dict[str, str]]:
    """Bytes of the files below a folder or URI, and the SHA-256 of those that were noted.

    The notes themselves are removed, and are in neither.
    """
    listed = sizes_below(folder)
    notes = [file for file in listed if file.rsplit("/", 1)[-1] == NOTE]
    found: dict[str, str] = {}
    for note in notes:
        hashes = None
        with contextlib.suppress(DataError):  # a note that was cut off: the files are read
            hashes = read_json(f"{folder}/{note}")
        if isinstance(hashes, dict):
            below = note.removesuffix(NOTE)
            found |= {f"{below}{name}": str(value) for name, value in hashes.items()}
    remove_files(folder, notes)
    sizes = {file: size for file, size in listed.items() if file not in notes}
    return sizes, {file: value for file, value in found.items() if file in sizes}


def hashes_below(folder: str, sizes: Mapping[str, int]) -> dict[str, str]:
    """SHA-256 of files below a folder or URI, which are read; `sizes`: name -> bytes."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        paths = [f"{folder}/{file}" for file in sizes]
        return dict(zip(sizes, pool.map(sha256_of, paths, sizes.values()), strict=True))


def sha256_of(path: str, size: int | None = None) -> str:
    """SHA-256 of a file or URI, read in blocks; `size`: its bytes, if they are known.

    Raises FileNotFoundError, or what `open_storage`'s calls raise.
    """
    storage, name = open_storage(path)
    left = storage.size(name) if size is None else size
    digest, start = hashlib.sha256(), 0
    while start < left:
        block = storage.cat_file(name, start=start, end=min(start + BLOCK_BYTES, left))
        if not block:
            raise FileNotFoundError(f"{path} ends at byte {start:,} of {left:,}")
        digest.update(block)
        start += len(block)
    return digest.hexdigest()
