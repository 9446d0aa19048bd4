"""Which data set a folder is, before anybody has said so: by names and first lines alone."""

from __future__ import annotations

from raysynth.datasets.files import open_folder, reaching
from raysynth.datasets.layout import Below, Layout
from raysynth.datasets.settings import LAYOUTS
from raysynth.errors import DataError

LAST = "tree"
"""Fits wherever images lie in folders: asked when no other does."""
LINE_BYTES = 4096


def layout_in(path: str) -> str:
    """The `dataset.name` that fits a folder or URI.

    Raises
    ------
    DataError
        It is no folder, or none fits; says what is expected.
    """
    with reaching(path):
        filesystem, root = open_folder(path)
        if not filesystem.isdir(root):
            raise DataError(f"{path}: not a folder. Fix: check the path")
        names = [name.removeprefix(root).lstrip("/") for name in filesystem.find(root)]

    def head(name: str) -> str:
        with filesystem.open(f"{root}/{name}", "rb") as file:
            line: bytes = file.read(LINE_BYTES).partition(b"\n")[0]
            return line.decode(errors="replace")

    below = Below(names, head)
    for name in sorted(LAYOUTS, key=lambda name: name == LAST):
        layout: Layout = LAYOUTS[name]
        if layout.fits(below):
            return name
    readable = "\n  ".join(f"{n}: {LAYOUTS[n].reads}" for n in LAYOUTS if LAYOUTS[n].has_files)
    raise DataError(
        f"{path}: {len(names):,} file(s), in none of the layouts that are read:\n  {readable}\n"
        "Fix: put the images into folders <label>/<attribute>, or write a metadata.csv"
    )
