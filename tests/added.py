"""Parts of another package: a module and its entry point in a temporary folder."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from pytest import MonkeyPatch

import raysynth.registry
from raysynth.registry import Registry, installed


def add_part(
    folder: Path, monkeypatch: MonkeyPatch, registry: Registry, name: str, text: str
) -> Path:
    """Install `text` as the module of a part of this name; the folder is on this process's path.

    Ray's workers need it too: `PYTHONPATH`, or `runtime_env`.
    """
    module = f"added_{name}"
    (folder / f"{module}.py").write_text(textwrap.dedent(text))
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{registry.package}]\n{name} = {module}\n")
    monkeypatch.delitem(sys.modules, module, raising=False)  # another test's of the same name
    monkeypatch.syspath_prepend(str(folder))
    # Read once a process: each time until the test is over.
    monkeypatch.setattr(raysynth.registry, "installed", installed.__wrapped__)
    return folder
