"""A part that another package brings: a module and its entry point in a folder on the path."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from raysynth.registry import Registry


def install(
    registry: Registry, name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put a part of this source under this name into `folder`, as an installed package would."""
    module = f"theirs_{name}"
    (folder / f"{module}.py").write_text(dedent(source))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.package}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "_others", {**registry._others, name: module})
