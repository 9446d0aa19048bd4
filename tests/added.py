"""Parts of another package: a module and its entry point in a folder."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent


def write_part(folder: Path, package: str, name: str, text: str) -> None:
    """Install `text` as the module of a part in the kind's folder `package`.

    It is found where `folder` is on the path: `sys.path`, `PYTHONPATH` of a process and of Ray's
    workers.
    """
    module = f"{package.replace('.', '_')}_{name}"
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(dedent(text))
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{package}]\n{name} = {module}\n")
