"""An audit on a terminal."""

from __future__ import annotations

import io

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysynth.inspection.findings import Findings
from raysynth.terminal import shown

WIDTH = 100


def as_text(audit: Findings) -> str:
    """The tables, the verdict, the next step."""
    told = io.StringIO()
    console = Console(file=told, width=WIDTH, highlight=False, soft_wrap=False)
    _print(audit, console)
    return told.getvalue()


def _print(audit: Findings, console: Console) -> None:
    console.print(_groups(audit))
    if audit.known:
        association = f"{audit.association:.2f}"
        console.print(f"label and attribute in training: Cramér's V {association} (0 apart, 1 one)")
    if audit.properties:
        console.print(_properties(audit))
    console.print(Text(f"Verdict: {shown(audit.verdict)}", style="bold"))
    for each in audit.warnings:
        console.print(Text(f"Warning: {shown(each)}"))
    console.print(Text(f"Next: {shown(audit.next_step)}"))
    console.print(
        Text(
            f"{audit.looked_at:,} images looked at in {audit.seconds:.0f} s; nothing was tuned, "
            "test labels were not used.",
            style="dim",
        )
    )


def percent(share: float) -> str:
    """A share as percent; a dash where there is none."""
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"


def _groups(audit: Findings) -> Table:
    what = "group" if audit.known else "label"
    table = Table(title=f"{shown(audit.name)}: images, and validation accuracy of linear heads")
    table.title_justify, table.box, table.padding = "left", box.SIMPLE, (0, 1, 0, 0)
    table.add_column(what)
    for name in ("train", "validation", "test", "plain", "balanced"):
        table.add_column(name, justify="right")
    plain, balanced = audit.plain, audit.balanced
    for g, name in enumerate(audit.names):
        mark = " ◀ worst" if g == plain.worst else ""
        table.add_row(
            Text(shown(name)),
            *(f"{int(counts[g]):,}" for counts in audit.counts.values()),
            percent(plain.accuracy[g]) + mark,
            percent(balanced.accuracy[g]),
        )
    return table


def _properties(audit: Findings) -> Table:
    table = Table(title="one property alone tells ... (balanced accuracy; chance: 1 / names)")
    table.title_justify, table.box, table.padding = "left", box.SIMPLE, (0, 1, 0, 0)
    table.min_width = len(str(table.title))
    table.add_column("property")
    table.add_column("the label", justify="right")
    if audit.known:
        table.add_column("the attribute", justify="right")
    for each in audit.properties or ():
        cells = [percent(each.label)]
        cells += [percent(each.attribute)] if each.attribute is not None else []
        table.add_row(each.name, *cells)
    return table
