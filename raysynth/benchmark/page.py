"""A benchmark's page among documents: what it asks, what there is, the plot, the tables."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pandas as pd

from raysynth.benchmark.driver import Finished

WIDTH = 100
"""Characters of a line of prose."""


def page(
    finished: Finished, records: pd.DataFrame, tables: str, command: str, folder: str, file: str
) -> str:
    """The page as Markdown, nothing of it written by hand; its plot lies beside it.

    Parameters
    ----------
    records : see `raysynth.benchmark.table`.
    tables : what `table.md` holds.
    command : the line that writes the page.
    folder : where the page will lie; the link to the configuration is relative to it.
    file : the benchmark's configuration, whose first comment introduces the page;
        empty: there is none.
    """
    made = set(records[["row", "severity", "seed"]].itertuples(index=False, name=None))
    cells = {(cell.row, cell.severity, cell.seed) for cell in finished.cells}
    sizes = " x ".join(str(len(set(values))) for values in zip(*cells, strict=True))
    if finished.settings.only_at:
        sizes += ", some rows at some severities"
    there = (
        f"Of {len(cells)} cells (rows x severities x seeds: {sizes}) {len(cells & made)} are "
        "finished. This page is written by"
    )
    parts = [f"# {finished.name}", wrapped(there), f"```bash\n{command}\n```"]
    if file:
        link = os.path.relpath(file, folder).replace(os.sep, "/")
        parts[1] = wrapped(f"Rows and budgets: [{Path(file).name}]({link}). {there}")
        parts.insert(1, first_comment(file))
    return "\n\n".join([*parts, f"![WGA of every row]({finished.name}.png)", tables])


def first_comment(file: str) -> str:
    """The comment that a YAML file begins with, as prose."""
    lines = []
    for line in Path(file).read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return wrapped(" ".join(lines))


def wrapped(text: str) -> str:
    """Markdown with its prose broken at `WIDTH`; tables stay as they are."""
    return "\n".join(
        line
        if line.startswith("|")
        else textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
