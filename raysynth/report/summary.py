"""The last lines of a run: its table and where the report is."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysynth.evaluation.kinds import OURS
from raysynth.report.content import ordered_methods, synthetic_images, title_of
from raysynth.storage.files import read_json
from raysynth.terminal import shown


def print_summary(report: str, console: Console | None = None) -> None:
    """Print the test accuracies of every method, in percent, and the page's path.

    Parameters
    ----------
    report : the report stage's folder or URI.
    """
    console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
    results = read_json(f"{report}/results.json")
    methods = ordered_methods(results)
    seeds = max((len(values["wga"]["seeds"]) for _, values in methods), default=0)
    table = Table(
        title=Text(
            f"{results['dataset']}, severity {results['severity']}: test accuracy, %, "
            f"mean ± standard deviation of {seeds} seed{'s' * (seeds != 1)}",
        ),
        title_justify="left",
        title_style="bold",
    )
    table.add_column("method")
    for column in ("WGA", "AGA", "weighted"):
        table.add_column(column, justify="right")
    for name, values in methods:
        cells = [
            f"{100 * values[key]['mean']:.1f} ± {100 * values[key]['std']:.1f}"
            for key in ("wga", "aga", "weighted")
        ]
        images = synthetic_images(values, results["generator"])
        title = title_of(name) + "*" * values["uses_validation"]
        title += f" ({images})" if images else ""
        table.add_row(Text(shown(title)), *cells, style="bold" if name == OURS else None)
    console.print()
    console.print(table)
    console.print(Text(f"Rule: {shown(results['selection_rule'])}."), style="dim")
    if any(values["uses_validation"] for _, values in methods):
        console.print("* trains on validation images too.", style="dim")
    for warning in filter(None, (results.get("unfaithful"), results.get("preference"))):
        console.print(Text(f"Warning: {shown(warning)}"), style="bold yellow")
    console.print(Text(f"Report: {shown(report)}/index.html"))
