"""Folders and files that are one user's alone: what others could read, plant or exchange."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def open_private(path: Path) -> int | None:
    """A descriptor of the folder, made where it is missing; None unless it is this user's alone.

    A link is no folder. Use the descriptor (`dir_fd`) afterwards: who may write to the folder
    above could put another one at the path.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(folder)
    if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return folder
    os.close(folder)
    return None


def is_private(path: Path) -> bool:
    """Whether the folder, made where it is missing, is this user's alone."""
    folder = open_private(path)
    if folder is None:
        return False
    os.close(folder)
    return True


def narrow(path: Path) -> None:
    """Take a file of this user's from group and others, if it is a plain one and there."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if ours and found.st_mode & 0o077:
                os.fchmod(file, 0o600)
        finally:
            os.close(file)
