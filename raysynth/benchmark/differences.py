"""How far rows are apart: differences of WGA seed by seed, to rows of the same benchmark.

The interval of a difference over seeds that both rows have says more than the intervals of two
means: a seed draws data and images that are hard, or easy, for all rows alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from raysynth.benchmark.table import Entry, entry, validation_marks
from raysynth.evaluation.kinds import OURS, REFERENCE_KINDS


@dataclass(frozen=True)
class Comparison:
    """Rows of ours against one row at a severity."""

    severity: Any
    other: str
    role: str
    """`best reference`, `best control` or `baseline`."""
    by_row: dict[str, Entry]
    """Row of ours -> WGA minus that of `other`; rows without a seed in common are left out."""


def comparisons(records: pd.DataFrame, baseline: str = "") -> list[Comparison]:
    """Severity by severity: against the best reference, the best control and the baseline.

    Parameters
    ----------
    records : see `raysynth.benchmark.table`.
    baseline : name of a row, or empty.
    """
    found = []
    for severity, part in records.groupby("severity", sort=True):
        others = [
            (f"best {kind}", _best(rivals))
            for kind in REFERENCE_KINDS  # the best of each
            if len(rivals := part[part["kind"] == kind])
        ]
        if baseline in set(part["row"]):
            others.append(("baseline", baseline))
        wga = part.pivot_table(index="seed", columns="row", values="wga")
        ours = part.loc[part["kind"] == OURS, "row"].unique()
        for role, other in others:
            pairs = {row: (wga[row] - wga[other]).dropna() for row in ours if row != other}
            by_row = {row: _entry(pair) for row, pair in pairs.items() if len(pair)}
            found.append(Comparison(severity, str(other), role, by_row))
    return found


def differences_markdown(records: pd.DataFrame, baseline: str = "") -> str:
    """A table per severity, in points; empty where there is nothing to compare."""
    found = comparisons(records, baseline)
    marks, text = validation_marks(records), ""
    for severity in dict.fromkeys(one.severity for one in found):
        columns = [one for one in found if one.severity == severity]
        rows = list(dict.fromkeys(row for one in columns for row in one.by_row))
        if not rows:
            continue
        heads = [f"− {one.other}{marks[one.other]} ({one.role})" for one in columns]
        text += f"\n| WGA at {severity}, paired by seed | {' | '.join(heads)} |\n"
        text += "| --- |" + " ---: |" * len(columns) + "\n"
        for row in rows:
            cells = [_signed(one.by_row[row]) if row in one.by_row else "–" for one in columns]
            text += f"| {row} | {' | '.join(cells)} |\n"
    if text:
        text += (
            "\nDifferences in points of WGA, mean over the seeds that both rows have ± half its "
            "95 % interval (Student's t). The best reference and control are those of the highest "
            "mean test WGA among those with the most seeds.\n"
        )
    return text


def differences_json(records: pd.DataFrame, baseline: str = "") -> list[dict[str, Any]]:
    """`[{severity, other, role, rows: {row: {mean, std, half_interval, seeds}}}]`."""
    return [
        {
            "severity": str(one.severity),
            "other": one.other,
            "role": one.role,
            "rows": {row: value.to_dict() for row, value in one.by_row.items()},
        }
        for one in comparisons(records, baseline)
    ]


def _best(rivals: pd.DataFrame) -> str:
    """The row of the highest mean WGA among those with the most seeds: one may be a lucky one."""
    seeds = rivals.groupby("row")["seed"].nunique()
    most = seeds.index[seeds == seeds.max()]
    return str(rivals.groupby("row")["wga"].mean()[most].idxmax())


def _entry(difference: pd.Series) -> Entry:
    return entry(difference.rename("difference").reset_index(), "difference")


def _signed(value: Entry) -> str:
    return ("+" if value.mean > 0 else "") + str(value)
