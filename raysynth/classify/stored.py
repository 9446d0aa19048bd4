"""JSON that a finished stage left: as it was written, or a refusal that names the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import fsspec

from raysynth.errors import DataError


def read_object(path: str, keys: Sequence[str]) -> dict[str, Any]:
    """A finished stage's JSON object that has these keys, each an object or a list.

    Raises
    ------
    DataError
        When it is not there, cut, or another file.
    """
    filesystem, name = fsspec.core.url_to_fs(path)
    try:
        found = json.loads(filesystem.cat_file(name))
        whole = all(isinstance(found[key], dict | list) for key in keys)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise DataError(
            f"{path} is missing, cut or another file; expected JSON with {', '.join(keys)}. Fix: "
            f"delete the folder {path.rsplit('/', 1)[0]} and run again: its stage is made anew"
        )
    return dict(found)
