"""What `ray job submit --working-dir .` would upload from here, packed as Ray packs it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from raysynth.doctor.check import FAIL, OK, WARN, Check, Finding, Scene

MIB = 1024**2
SECONDS = 10.0
"""To count files: a home folder is not worth a minute."""
LARGEST = 3
"""Folders that are named."""


class _Enough(Exception):
    """More than can be uploaded, or than can be counted in a moment."""


def sizes(folder: Path, most: int) -> tuple[Counter[str], bool]:
    """Bytes by the first folder or file below, and whether that is all of it.

    Counting ends at ten times `most` bytes or after SECONDS. Ray's walk honours .gitignore and
    .rayignore, of sub-folders too.
    """
    from ray._private.runtime_env import packaging

    found: Counter[str] = Counter()
    until = time.monotonic() + SECONDS

    def count(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder).parts[0]] += path.stat().st_size
        if found.total() > 10 * most or time.monotonic() > until:
            raise _Enough

    silent = logging.getLogger(f"{__name__}.silent")
    silent.disabled = True
    excluded = packaging._get_excludes(folder, [])
    try:
        packaging._dir_travel(folder, [excluded], count, include_gitignore=True, logger=silent)
    except _Enough:
        return found, False
    return found, True


def judge(scene: Scene) -> Iterator[Finding]:
    """The size of this folder, beside what Ray's head takes."""
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        yield Finding(OK, "inside a job: its working directory has been uploaded")
        return
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE as MOST

    folder = Path.cwd()
    found, whole = sizes(folder, MOST)
    size = f"{'' if whole else 'more than '}{found.total() / MIB:,.1f} MiB"
    if whole and found.total() < MOST:
        yield Finding(OK, f"--working-dir {folder}: {size} of at most {MOST / MIB:g}")
        return
    largest = ", ".join(f"{name} {n / MIB:,.1f}" for name, n in found.most_common(LARGEST))
    yield Finding(
        WARN if scene.local else FAIL,
        f"--working-dir {folder}: {size} (largest: {largest}), a head takes {MOST / MIB:g}",
        "name what a job does not need in .gitignore or .rayignore, or give the command in the "
        "repository's folder",
    )


PART = Check(90, judge)
