"""`make bench`: every benchmark's quick mode, its bars as a regression check.

    python benchmarks/regression.py [NAME ...]

Bars are ratios of two measurements of one run (and counts, memory slopes, judge accuracies), never
seconds: a slower machine passes as a faster one does. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CHECKS = (
    "finetune",
    "generation",
    "search",
    "growth",
    "ragged",
    "full_weights",
    "streaming",
    "neighbours",
)


def shared(name: str, storage: Path) -> list[str]:
    """Options by which generation takes over the adapters that finetune trained, if it ran."""
    if name == "finetune":
        return ["--storage", str(storage)]
    trained = storage / "grouped"
    return ["--run", str(trained)] if name == "generation" and trained.exists() else []


def check(name: str, storage: Path) -> tuple[dict[str, bool], float, str]:
    """Bars of a benchmark's quick mode, its seconds, and what it said if it broke."""
    begin = time.monotonic()
    command = [sys.executable, str(HERE / f"{name}.py"), "--quick", *shared(name, storage)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    try:
        return json.loads(done.stdout[done.stdout.index("{") :])["bars"], seconds, ""
    except (ValueError, KeyError):
        return {"runs": False}, seconds, done.stderr[-2000:]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("names", nargs="*", help=f"only these of {', '.join(CHECKS)}")
    names = options.parse_args().names or CHECKS
    if unknown := sorted({*names} - {*CHECKS}):
        options.error(f"no benchmark of the check: {', '.join(unknown)}")
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title="regression check: quick benchmarks", title_justify="left")
    for column in ("benchmark", "seconds", "bar", "holds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    with tempfile.TemporaryDirectory(prefix="raysynth-bench-") as storage:
        missed = judge(names, Path(storage), console, table)
    console.print(table)
    sys.exit(1 if missed else 0)


def judge(names: Sequence[str], storage: Path, console: Console, table: Table) -> int:
    """Run the checks, a row of the table for each bar; how many are missed."""
    missed = 0
    for name in names:
        console.print(f"{name} ...", end=" ")
        bars, seconds, error = check(name, storage)
        lost = ", ".join(bar for bar, holds in bars.items() if not holds)
        console.print(f"{seconds:.0f} s{'; missed: ' if lost else ''}{lost}")
        if error:
            console.print(error, markup=False)
        for number, (bar, holds) in enumerate(bars.items()):
            missed += not holds
            first = (name, f"{seconds:.0f}") if number == 0 else ("", "")
            table.add_row(*first, bar, "yes" if holds else "[bold red]NO[/]")
    return missed


if __name__ == "__main__":
    main()
