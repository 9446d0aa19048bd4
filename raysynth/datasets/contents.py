"""What the files of a data set hold, in one digest: unchanged files are not read again.

A file is its content, not its name and size: another picture of the same size is another data set,
and a copy with other times is the same one. Hashes of local files are kept in the user's cache by
size, times and inode, as git's index keeps them; object stores say a hash of their own.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysynth.datasets.files import open_folder, reaching
from raysynth.datasets.settings import DatasetConfig
from raysynth.storage.cache import cache_folder, make_cache
from raysynth.storage.versions import said_hash, said_time

Facts = tuple[int, int, int, int]
"""Size, time of change of content and of inode (ns), inode."""
METADATA = (".csv", ".parquet", ".txt")
SETTLED_NS = 2_000_000_000
"""A file changed later than this before its hash may change again within one tick of its clock."""
UNREADABLE = "unreadable"
THREADS = 16
KIND = "contents"
"""Their folder in the cache."""
CHUNK = 1 << 20


def folder_digest(path: str) -> str:
    """SHA-256 of all names and contents below a folder; "" without one."""
    filesystem, root = open_folder(path)
    if not filesystem.isdir(root):
        return ""
    local = filesystem.is_disk
    found = _local(root) if local else _remote(filesystem, root)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{len(name)} {name} {found[name]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _remote(filesystem: Any, root: str) -> dict[str, str]:
    """Name -> what the store says of its content; where it says nothing, the file's times."""
    found = {}
    for name, facts in filesystem.find(root, detail=True).items():
        said = said_hash(facts)
        if not said and name.endswith(METADATA):
            said = hashlib.sha256(filesystem.cat_file(name)).hexdigest()
        said = said or said_time(facts)
        found[name.removeprefix(root)] = f"{facts['size']} {said}".rstrip()
    return found


def _local(root: str) -> dict[str, str]:
    """Name -> SHA-256 of a file's content; links to folders are not followed, pipes not opened."""
    cache = _Cache(root)
    known = cache.read()
    files, found = {}, {}
    for name, path, facts in walk(root):
        if facts is None:
            found[name] = "no file"
        elif name in known and known[name][0] == facts:
            found[name] = known[name][1]
        else:
            files[name] = (path, facts)
    with ThreadPoolExecutor(THREADS) as pool:
        hashes = pool.map(_sha256, [path for path, _ in files.values()])
        made = dict(zip(files, hashes, strict=True))
    settled = time.time_ns() - SETTLED_NS
    fresh = {
        name: (facts, made[name])
        for name, (_, facts) in files.items()
        if max(facts[1:3]) < settled and made[name] != UNREADABLE
    }
    kept = {n: entry for n, entry in known.items() if n in found}
    if fresh or len(kept) < len(known):
        cache.write(kept | fresh)
    return found | made


def walk(root: str) -> Iterator[tuple[str, str, Facts | None]]:
    """Every file below a folder: name, path, and facts; None: a link to a folder, a pipe, nothing.

    Links to folders are named and not entered: what they hold has another name, or lies outside.
    """
    for folder, folders, files in os.walk(root):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        linked = [name for name in folders if os.path.islink(f"{folder}/{name}")]
        for name in (*files, *linked):
            path = f"{folder}/{name}"
            yield name if inner == "." else f"{inner}/{name}", path, _facts(path)


def _facts(path: str) -> Facts | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(CHUNK):
                digest.update(data)
    except OSError:
        return UNREADABLE
    return digest.hexdigest()


class _Cache:
    """Hashes of one folder's files, in the user's own cache; without one, nothing is kept."""

    def __init__(self, root: str) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
        self._file = str(cache_folder() / KIND / f"{name}.parquet")

    def read(self) -> dict[str, tuple[Facts, str]]:
        """Name -> facts and hash; nothing where another user might have written it."""
        try:
            with open(self._file, "rb") as file:
                here = os.fstat(file.fileno())
                if here.st_uid != os.getuid() or here.st_mode & 0o022:
                    return {}
                columns = pq.read_table(file, partitioning=None).to_pydict()
            facts = zip(*(columns[key] for key in ("size", "mtime", "ctime", "inode")), strict=True)
            return dict(
                zip(columns["name"], zip(facts, columns["sha256"], strict=True), strict=True)
            )
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return {}

    def write(self, entries: dict[str, tuple[Facts, str]]) -> None:
        """Replace what is kept, whole or not at all; a cache that cannot be written is none."""
        try:
            names = [name for name in entries if _is_text(name)]
            facts = zip(*(entries[name][0] for name in names), strict=True)
            columns = dict(zip(("size", "mtime", "ctime", "inode"), facts, strict=False))
            integers = {"size": pa.int64(), "mtime": pa.int64(), "ctime": pa.int64()}
            table = pa.table(
                {
                    "name": pa.array(names, pa.string()),
                    **{k: pa.array(v, integers.get(k, pa.uint64())) for k, v in columns.items()},
                    "sha256": [entries[name][1] for name in names],
                }
            )
            make_cache(KIND)
            temporary = f"{self._file}.{os.getpid()}.tmp"
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "wb") as file:
                pq.write_table(table, file, compression="zstd")
            os.replace(temporary, self._file)
        except (OSError, ValueError, pa.ArrowException):
            return


def _is_text(name: str) -> bool:
    """Whether a name can be stored: file names may be any bytes."""
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in name)


READING = 3
"""Raised when the same files are read as other rows: images ingested before are read again."""


def source_digest(config: DatasetConfig, known: dict[str, str]) -> dict[str, Any]:
    """What identifies data outside the package: the files' content, and how it is read.

    `known`: path -> digest of folders that were read; this one's is added.
    """
    if not config.has_files:
        return {}
    path = str(config.path)
    if path not in known:
        with reaching(path):
            known[path] = folder_digest(path)
    return {"metadata": known[path], "reading": READING}
