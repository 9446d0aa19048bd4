"""The page of what `neighbours` measured: `python benchmarks/neighbours_page.py FILE`."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neighbours import CHECKS, KEPT

INTRO = """
Does each system of the literature do its job? Every check compares a part with its own absence, on
outfits with the embedded base: mean over seeds, their standard deviation, the seeds. Bars are of
the means and were set before these seeds were run; a missed one stays, with its numbers. What the
parts are: [method](../method.md). Which one to take: [choosing parts](../choosing.md). This page is
written by
"""
COMMAND = "python benchmarks/neighbours_page.py docs/results/neighbours.md"


def said(check: str) -> str:
    """What a check asks, in a sentence."""
    return " ".join((CHECKS[check][1].__doc__ or "").split())


def section(check: str, report: Mapping[str, Any]) -> Iterator[str]:
    """Heading, question, bars, numbers."""
    yield from ("", f"## {check}", "", *textwrap.wrap(said(check), 100), "")
    yield from ("| bar | |", "| --- | --- |")
    for bar, held in report["bars"].items():
        yield f"| {bar} | {'holds' if held else '**missed**'} |"
    yield from ("", "| number | mean | sd | seeds |", "| --- | ---: | ---: | --- |")
    for name, found in report["numbers"].items():
        seeds = " ".join(f"{value:g}" for value in found["seeds"])
        spread = "–" if found["sd"] is None else f"{found['sd']:.3g}"
        yield f"| {name} | {found['mean']:.4g} | {spread} | {seeds} |"


def page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page; `reports`: check -> what was kept of it."""
    lines = ["# neighbours", INTRO, "```bash", COMMAND, "```", ""]
    lines += [
        "| check | bars that hold | python benchmarks/neighbours.py |",
        "| --- | ---: | --- |",
    ]
    for check in CHECKS:
        found = list(reports[check]["bars"].values()) if check in reports else []
        held = f"{sum(found)} of {len(found)}" if found else "not measured"
        name = f"[{check}](#{check})" if found else check
        lines.append(f"| {name} | {held} | `--only {check}` |")
    for check in CHECKS:
        if check in reports:
            lines += section(check, reports[check])
    return "\n".join(lines) + "\n"


def kept() -> dict[str, Any]:
    """Check -> its report, of those that were measured as a whole."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.parse_args().file.write_text(page(kept()))
