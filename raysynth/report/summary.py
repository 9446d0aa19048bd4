"""The last lines of a run: its table and where the report is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysynth.classify.verdict import verdict_of
from raysynth.references.titles import title_of
from raysynth.report.content import ordered_methods, synthetic_images
from raysynth.storage.files import read_json
from raysynth.terminal import shown


def print_summary(report: str, console: Console | None = None) -> None:
    """Print the test accuracies of every method, in percent, what is shipped, the page's path.

    Parameters
    ----------
    report : the report stage's folder or URI.
    """
    console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
    results = read_json(f"{report}/results.json")
    methods, found = ordered_methods(results), verdict_of(results)
    console.print()
    console.print(_table(results, found["name"] if found else ""))
    console.print(Text(f"Rule: {shown(results['selection_rule'])}."), style="dim")
    if any(values["uses_validation"] for _, values in methods):
        console.print("* trains on validation images too.", style="dim")
    if results.get("inferred"):
        console.print(Text(f"Warning: {shown(results['inferred'])}."), style="bold yellow")
    if results.get("unfaithful"):
        console.print(Text(f"Warning: {shown(results['unfaithful'])}"), style="bold yellow")
    for sentence in results.get("verdict", {}).get("because", ())[:1]:
        console.print(Text(f"Synthesis {results['verdict']['word']}. {shown(sentence)}"))
    if found:
        console.print(Text(shown(found["words"])), style="bold")
    console.print(Text(f"Report: {shown(report)}/index.html"))


def _table(results: Mapping[str, Any], bold: str) -> Table:
    """Test accuracies of every method, in percent; `bold`: the method that is shipped."""
    methods = ordered_methods(results)
    seeds = max((len(values["wga"]["seeds"]) for _, values in methods), default=0)
    data = shown(results.get("data", results["dataset"]))
    table = Table(
        title=Text(
            f"{data}, severity {results['severity']}: test accuracy, %, "
            f"mean ± standard deviation of {seeds} seed{'s' * (seeds != 1)}",
        ),
        title_justify="left",
        title_style="bold",
    )
    table.add_column("method")
    of = " of inferred groups" if results.get("inferred") else ""
    for column in (f"WGA{of}", f"AGA{of}", "weighted"):
        table.add_column(column, justify="right")
    for name, values in methods:
        cells = [
            f"{100 * values[key]['mean']:.1f} ± {100 * values[key]['std']:.1f}"
            for key in ("wga", "aga", "weighted")
        ]
        images = synthetic_images(values, results["generator"])
        title = title_of(name) + "*" * values["uses_validation"]
        title += f" ({images})" if images else ""
        table.add_row(Text(shown(title)), *cells, style="bold" if name == bold else None)
    return table
