"""The commands `runs`, `compare` and `open`: folders in, words and a page out."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysynth.compare.grids import Grid, beside, listed, named
from raysynth.compare.read import known, seen_at
from raysynth.errors import ConfigError
from raysynth.storage.files import open_storage, write_atomic
from raysynth.terminal import masked, shown


def show_runs(folder: str) -> None:
    """Print a table of the runs below a folder or URI."""
    _print([listed(*seen_at(folder))])


def show_beside(roots: Sequence[str], to: str) -> None:
    """Print runs side by side; `to`: write a page of them, with pictures, too.

    Raises
    ------
    ConfigError
        Fewer than two runs, or one that is not there.
    """
    if len(roots) < 2:
        raise ConfigError(
            f"RUN: got {len(roots)}, expected two or more runs. Fix: name their folders; `raysynth "
            "runs` lists them"
        )
    runs = [known(root) for root in roots]
    names = named(runs)
    _print(beside(runs, names))
    if to:
        # matplotlib, and images of every run: only where they are asked for.
        from raysynth.compare.page import render

        write_atomic(to, render(runs, names).encode())
        print(f"Page: {shown(masked(to))}")


def open_report(root: str, show: bool = True) -> str:
    """Open a run's page in a browser; a remote one is fetched first. Its path.

    Raises
    ------
    ConfigError
        There is no run, or it has no report yet.
    """
    run = known(root)
    place = run.place("report")
    if not place:
        raise ConfigError(
            f"{shown(masked(root))}: no report yet, the run is {run.status.state}. Fix: let it "
            f"end; `raysynth status {shown(masked(root))}` says how far it is"
        )
    storage, path = open_storage(place)
    if not storage.is_disk:
        local = tempfile.mkdtemp(prefix="raysynth-report-")
        storage.get(f"{path}/", f"{local}/", recursive=True)
        path = local
    page = os.path.abspath(f"{path}/index.html")
    if show:
        webbrowser.open(f"file://{page}")
    return page


def _print(grids: Sequence[Grid]) -> None:
    """Grids on standard output: in a pipe as wide as they are."""
    console = Console(file=sys.stdout, highlight=False)
    for number, grid in enumerate(grids):
        table = Table(title=Text(grid.title), title_justify="left", title_style="bold")
        for position, head in enumerate(grid.head):
            right = position >= grid.texts
            table.add_column(Text(shown(head)), justify="right" if right else "left", no_wrap=right)
        for row in grid.rows:
            table.add_row(*(Text(shown(cell)) for cell in row))
        if not console.is_terminal:
            console.width = max(Console(width=10_000).measure(table).maximum, 80)
        if number:
            console.print()
        console.print(table)
        console.print(Text(shown(grid.note, lines=True)), style="dim")
