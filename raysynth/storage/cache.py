"""Where this user's machine keeps what can be had again: hashes, costs, models."""

from __future__ import annotations

import os
from pathlib import Path

from raysynth.storage.private_folder import is_private


def cache_folder() -> Path:
    """`raysynth` in XDG_CACHE_HOME, or in ~/.cache; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "raysynth"


def make_cache(kind: str) -> Path:
    """The folder of a kind in it, made where it is missing; nobody else may enter one made here.

    Notes of runs lie in the cache too, and are written to none that others may enter. Raises
    OSError where it cannot be made.
    """
    is_private(cache_folder())  # made so; one that is there stays as it is
    folder = cache_folder() / kind
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
