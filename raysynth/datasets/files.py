"""The files of any data set: where they lie, are they there, and in which split."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from raysynth.errors import ConfigError, DataError, RaysynthError, StorageError
from raysynth.storage.files import Storage, open_storage

LEFT_OUT = "left_out"
"""Metadata of a listing's schema: a sentence on the images that its reader left out."""
REACH_SECONDS = 5.0
"""How long a data set's storage may be away while its files are listed."""
LONGEST = 100
"""Characters of a name, or of another program's message, that are shown."""


@contextmanager
def reaching(path: str) -> Iterator[None]:
    """Whatever a file system raises on the way to a data set is a DataError with the fix."""
    try:
        yield
    except StorageError as error:
        raise _unreadable(path, error.__cause__ or error) from None
    except RaysynthError:
        raise
    except ImportError as error:
        raise DataError(
            f"dataset.path: {clipped(path)} needs a package that is not installed: "
            f"{clipped(error)}. Fix: install the filesystem's package (s3fs, gcsfs, adlfs), here "
            "and on the workers"
        ) from None
    except Exception as error:  # remote file systems raise what their packages do
        known = isinstance(error, OSError) or "Protocol not known" in str(error)
        if not known and "://" not in path:
            raise
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: BaseException) -> DataError:
    return DataError(
        f"dataset.path: {clipped(path)} cannot be read: {type(error).__name__}: "
        f"{clipped(error)}. Fix: a folder that this user may read, or a URI (s3://, gs://) "
        "whose storage answers and takes this user's credentials"
    )


def open_folder(path: str) -> tuple[Storage, str]:
    """The filesystem of a data set's folder, and its name there.

    Tried again for REACH_SECONDS, no longer: before a run has begun its address may be wrong.
    """
    return open_storage(path, REACH_SECONDS)


def require_files(path: str, names: Sequence[str], source: str, tree: str = "") -> None:
    """Refuse names that leave the folder, are not there, are no plain files, or name one twice.

    Parameters
    ----------
    names : relative to `path`.
    source : who names them, e.g. "the metadata".
    tree : the layout that is expected, for the message.
    """
    refuse_doubles(path, names, source)
    outside = [name for name in names if _leaves(name)]
    if outside:
        raise DataError(
            f"{path}: {some(outside)} in {source} leaves the folder; expected paths below it. "
            f"Fix: {_common(outside)}"
        )
    filesystem, root = open_folder(path)
    if filesystem.is_disk:
        gone = _require_plain(path, root, names)
    else:
        present = {found.removeprefix(root).lstrip("/") for found in filesystem.find(root)}
        gone = [name for name in names if posixpath.normpath(name) not in present]
    if gone:
        raise DataError(
            f"{path}: {some(gone)} named in {source} but not there. Fix: add the files or remove "
            f"the rows{tree and '; ' + tree}"
        )


def _require_plain(path: str, root: str, names: Sequence[str]) -> list[str]:
    """The names that are not there; links that leave the folder and special files are refused."""
    real = os.path.realpath(root)
    folders: dict[str, bool] = {}  # linked sub-folders are followed as long as they stay inside
    gone, linked, special = [], [], []
    for name in names:
        full = f"{root}/{name}"
        try:
            mode, itself = os.stat(full).st_mode, os.lstat(full).st_mode
        except (OSError, ValueError):  # ValueError: a name that no file can have
            gone.append(name)
            continue
        folder = os.path.dirname(full)
        if folder not in folders:
            folders[folder] = is_inside(folder, real)
        if not folders[folder] or (stat.S_ISLNK(itself) and not is_inside(full, real)):
            linked.append(name)
        elif not stat.S_ISREG(mode):
            special.append(name)
    if linked:
        raise DataError(
            f"{path}: {some(linked)} is a link that leaves the folder, or lies in one. Fix: copy "
            "the files into the folder"
        )
    if special:
        raise DataError(
            f"{path}: {some(special)} is no plain file but a folder, a pipe, a socket or a device. "
            "Fix: name image files only"
        )
    return gone


def is_inside(path: str, real: str) -> bool:
    """Whether a path ends, all links followed, below the real path of a folder or at it."""
    return os.path.commonpath([os.path.realpath(path), real]) == real


def refuse_doubles(path: str, names: Sequence[str], source: str) -> None:
    """Refuse names of one file in two rows: it may be in two splits, or in two groups."""
    rows = Counter(posixpath.normpath(name) for name in names)
    doubled = [name for name, count in rows.items() if count > 1]
    if doubled:
        raise DataError(
            f"{path}: {some(doubled)} named more than once in {source}; expected a row per file. "
            "Fix: remove doubles"
        )


def require_two(label: str, attribute: str) -> None:
    """Refuse one property of the images as both label and attribute: either may be the default."""
    if label == attribute:
        raise ConfigError(
            f"dataset.attribute: another one than the label {clipped(label)} expected, got the "
            "same (one of the two may be the default). Fix: name both, dataset.label=... "
            "dataset.attribute=..."
        )


def deal_splits(
    group: np.ndarray, validation_share: float, test_share: float, seed: int, least: int = 1
) -> list[str]:
    """A split per row, stratified by group: at least so many of a split where possible.

    A share of 0 makes none.
    """
    split = np.full(len(group), "train", dtype=object)
    for g in np.unique(group):
        rows = np.random.default_rng([seed, int(g), 29]).permutation(np.flatnonzero(group == g))
        test, validation = (
            max(least, round(share * len(rows))) if share else 0
            for share in (test_share, validation_share)
        )
        split[rows[:test]] = "test"
        split[rows[test : test + validation]] = "validation"
    named: list[str] = split.tolist()
    return named


def some(names: Iterable[object]) -> str:
    """The first three of some names, and how many more there are; long ones are cut."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(clipped(name) for name in names[:3]) + more


def clipped(text: object) -> str:
    """One line of at most LONGEST characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def below(path: str, names: Iterable[str]) -> list[str]:
    """Names as a data set has them: `/` between folders, relative where they lie below `path`."""
    whole = path if "://" in path else os.path.abspath(path)
    start = whole.rstrip("/").replace("\\", "/") + "/"
    return [name.replace("\\", "/").removeprefix(start) for name in names]


def _common(names: Sequence[str]) -> str:
    """What to do about names outside: where all of them lie together, or else."""
    roots = {posixpath.dirname(name) for name in names if posixpath.isabs(name)}
    together = posixpath.commonpath(roots) if roots else ""
    if together.strip("/"):
        return f"dataset.path={clipped(together)}, with the metadata in it; or copy the files here"
    return "copy the files into the folder, and name them as they lie there"


def _leaves(name: str) -> bool:
    return posixpath.isabs(name) or "\\" in name or posixpath.normpath(name).startswith("..")
