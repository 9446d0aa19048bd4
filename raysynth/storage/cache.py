"""Where this user's machine keeps what can be had again: hashes, costs, models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`raysynth` in XDG_CACHE_HOME, or in ~/.cache; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "raysynth"
