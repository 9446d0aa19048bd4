"""What a benchmark leaves: table.md, table.json, differences.json, records.csv and the plot."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from raysynth.benchmark.choices import choices_markdown, choose, with_choices
from raysynth.benchmark.differences import differences_json, differences_markdown
from raysynth.benchmark.driver import Finished
from raysynth.benchmark.plot import wga_plot
from raysynth.benchmark.table import as_json, markdown, read_records
from raysynth.errors import StageError
from raysynth.storage.files import write_atomic
from raysynth.terminal import shown


def publish(finished: Finished, command: str) -> str:
    """Write the table and the plot, print the table; returns the folder or URI.

    Raises
    ------
    StageError
        When no cell is finished.
    """
    records = read_records(finished.cells, finished.shared, finished.known)
    if records.empty:
        error = StageError(_why_empty(finished))
        error.exit_code = finished.exit_code or error.exit_code
        raise error
    write_atomic(f"{finished.root}/records.csv", records.to_csv(index=False).encode())
    among, baseline = finished.settings.by_validation, finished.settings.baseline
    choices = choose(records, among)
    records = with_choices(records, choices)
    table = markdown(records, command) + choices_markdown(choices, among)
    table += differences_markdown(records, baseline)
    failed = ""
    if finished.failed:
        failed = "\nFailed cells:\n"
        failed += "".join(f"- {name}: {reason}\n" for name, reason in finished.failed.items())
    write_atomic(f"{finished.root}/table.md", (table + failed).encode())
    write_atomic(f"{finished.root}/table.json", as_json(records).encode())
    differences = json.dumps(differences_json(records, baseline), indent=1) + "\n"
    write_atomic(f"{finished.root}/differences.json", differences.encode())
    write_atomic(f"{finished.root}/wga.png", wga_plot(records, baseline))
    console = Console(file=sys.stdout, width=200)
    console.print(Markdown(shown(table, lines=True)))
    if failed:  # reasons hold paths and names, which are no Markdown
        console.print(Text(shown(failed, lines=True)), soft_wrap=True)
    return finished.root


def _why_empty(finished: Finished) -> str:
    if finished.failed:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in finished.failed.items())
        return f"benchmark: no cell finished:\n  {reasons}\nFix: what the reasons say"
    return (
        f"benchmark: none of the {len(finished.cells)} cells is finished below {finished.shared}, "
        "or recorded; expected at least one. Fix: run the benchmark without --finished, with the "
        "storage_path that it ran with"
    )
