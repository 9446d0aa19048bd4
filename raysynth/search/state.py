"""Whether what Tune keeps of an experiment can be read, before it is gone on with.

Tune itself logs a state that it cannot read, and searches on beside what is left of it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from raysynth.storage.files import open_storage

STATE: dict[str, Callable[[bytes], Any]] = {
    "experiment_state-*.json": json.loads,
    "search_gen_state-*.json": pickle.loads,  # by its content
    "searcher-state-*.pkl": pickle.loads,
}
"""Files of an experiment's folder, of which Tune takes the newest, and what reads them."""


def check_state(folder: str) -> None:
    """Raise what keeps an experiment's folder or URI from being gone on with.

    Raises
    ------
    FileNotFoundError
        The experiment was cut off before Tune kept anything of it.
    Exception
        What reading a file that is cut off raises: pickles may raise anything.
    """
    storage, root = open_storage(folder)
    storage.invalidate_cache(root)
    files = [str(path) for path in storage.ls(root, detail=False)]
    for pattern, read in STATE.items():
        kept = [path for path in files if fnmatchcase(path.rsplit("/", 1)[1], pattern)]
        if not kept:
            raise FileNotFoundError(f"no {pattern}")
        read(storage.cat_file(max(kept)))
