"""What a benchmark leaves: tables, records, the plot, and its page among documents."""

from __future__ import annotations

import json
import sys

import pandas as pd
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from raysynth.benchmark.choices import choices_markdown, choose, with_choices
from raysynth.benchmark.differences import differences_json, differences_markdown
from raysynth.benchmark.driver import Finished
from raysynth.benchmark.faithful import fidelity_markdown
from raysynth.benchmark.page import page, wrapped
from raysynth.benchmark.plot import wga_plot
from raysynth.benchmark.table import as_json, markdown, read_records
from raysynth.errors import StageError
from raysynth.storage.files import write_atomic
from raysynth.terminal import shown


def publish(finished: Finished, command: str, documents: str = "", file: str = "") -> str:
    """Write tables and plot, print the tables; returns the folder or URI.

    Parameters
    ----------
    command : the line that does this.
    documents : local folder for the page `<name>.md` and its plot; empty: none is written.
    file : the benchmark's configuration, which the page introduces.

    Raises
    ------
    StageError
        When no cell is finished.
    """
    records, tables = tabled(finished)
    baseline = finished.settings.baseline
    failed = ""
    if finished.failed:
        failed = "\nFailed cells:\n"
        failed += "".join(f"- {name}: {reason}\n" for name, reason in finished.failed.items())
    plot = wga_plot(records, baseline)
    own = records[~records["row"].isin(finished.settings.by_validation)]
    differences = json.dumps(differences_json(records, baseline), indent=1) + "\n"
    for name, content in (
        ("records.csv", own.to_csv(index=False).encode()),
        ("table.md", f"{tables}\nWritten by `{command}`.\n{failed}".encode()),
        ("table.json", as_json(records).encode()),
        ("differences.json", differences.encode()),
        ("wga.png", plot),
    ):
        write_atomic(f"{finished.root}/{name}", content)
    if documents:
        text = page(finished, records, tables, command, documents, file)
        write_atomic(f"{documents}/{finished.name}.md", text.encode())
        write_atomic(f"{documents}/{finished.name}.png", plot)
    console = Console(file=sys.stdout, width=200)
    console.print(Markdown(shown(tables, lines=True)))
    if failed:  # reasons hold paths and names, which are no Markdown
        console.print(Text(shown(failed, lines=True)), soft_wrap=True)
    return finished.root


def tabled(finished: Finished) -> tuple[pd.DataFrame, str]:
    """The records, those of rows chosen by validation among them, and their tables in Markdown.

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
    among, baseline = finished.settings.by_validation, finished.settings.baseline
    choices = choose(records, among)
    records = with_choices(records, choices)
    tables = markdown(records) + choices_markdown(choices, among)
    tables += differences_markdown(records, baseline) + fidelity_markdown(records)
    return records, wrapped(tables)


def _why_empty(finished: Finished) -> str:
    if finished.failed:
        reasons = "\n  ".join(f"{name}: {reason}" for name, reason in finished.failed.items())
        return f"benchmark: no cell finished:\n  {reasons}\nFix: what the reasons say"
    return (
        f"benchmark: none of the {len(finished.cells)} cells is finished below {finished.shared}, "
        "or recorded; expected at least one. Fix: run the benchmark without --finished, with the "
        "storage_path that it ran with"
    )
