"""How a run is made again: its command, its folder, its versions and its commit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import raysynth
from raysynth.report.content import Content
from raysynth.report.departures import departures
from raysynth.terminal import masked

USUAL = ("name", "storage_path", "seed")
"""Keys that departures leave out, for the page has them elsewhere."""


def command(config: Any) -> str:
    """`raysynth run key=value ...`: every setting that is not the default."""
    usual = type(config)()
    own = [
        (key, masked(str(getattr(config, key))))
        for key in USUAL
        if getattr(config, key) != getattr(usual, key)
    ]
    own += [(one.key, one.value) for one in departures(config)]
    words = [shlex.quote(f"{key}={value}") for key, value in own]
    return " \\\n  ".join(["raysynth run", *words])


def folder(config: Any) -> str:
    """Where the run lies, without secrets."""
    return masked(config.root)


def versions(content: Content) -> dict[str, str]:
    """Versions recorded by the stage that decides the numbers; the commit, of a checkout."""
    stages = content.manifest["stages"]
    last = next((name for name in reversed(content.order) if name in stages), None)
    found = dict(stages[last].get("versions", {})) if last else {}
    if now := commit():
        found["commit of this page"] = now
    return found


def commit() -> str:
    """The commit of the checkout that raysynth is imported from; nothing for an installed one."""
    root = Path(raysynth.__file__).parent.parent / ".git"
    try:
        if root.is_file():  # a worktree: its folder is named there
            root = Path(root.read_text().partition("gitdir:")[2].strip())
        head = (root / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:12]
        ref = head.removeprefix("ref: ")
        shared = root / "commondir"
        home = (root / shared.read_text().strip()).resolve() if shared.is_file() else root
        if (home / ref).is_file():
            return (home / ref).read_text().strip()[:12]
        packed = (home / "packed-refs").read_text().splitlines()
        return next((line.split()[0][:12] for line in packed if line.endswith(f" {ref}")), "")
    except OSError:
        return ""
