"""Rows that validation chooses among others, seed by seed: a search over what rows differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Choice:
    """What stands for a row of `benchmark.by_validation` at one severity and seed."""

    name: str
    severity: Any
    seed: Any
    row: str
    """The row whose records are taken."""


def choose(records: pd.DataFrame, among: Mapping[str, Sequence[str]]) -> list[Choice]:
    """The row of the best mean validation WGA, of equal ones the first named.

    Severities and seeds that not all rows of a choice have are left out: a choice among fewer
    would be another one.

    Parameters
    ----------
    records : see `raysynth.benchmark.table`.
    among : `benchmark.by_validation`.
    """
    found = []
    for name, rows in among.items():
        some = records[records["row"].isin(rows)]
        for (severity, seed), part in some.groupby(["severity", "seed"], sort=False):
            validation = part.groupby("row")["validation_wga"].mean()
            if len(validation) == len(rows):
                best = max(rows, key=lambda row: validation[row])
                found.append(Choice(name, severity, seed, best))
    return found


def with_choices(records: pd.DataFrame, choices: Sequence[Choice]) -> pd.DataFrame:
    """The records, and again those of the chosen rows under the choices' names."""
    parts = [records]
    for one in choices:
        mine = (records["row"] == one.row) & (records["seed"] == one.seed)
        mine &= records["severity"] == one.severity
        parts.append(records[mine].assign(row=one.name))
    return pd.concat(parts, ignore_index=True)


def choices_markdown(choices: Sequence[Choice], among: Mapping[str, Sequence[str]]) -> str:
    """A line per choice: among which rows, and how often each was taken."""
    text = ""
    for name in dict.fromkeys(one.name for one in choices):
        taken = Counter(one.row for one in choices if one.name == name)
        counts = ", ".join(f"{row} {taken[row]} ×" for row in among[name] if taken[row])
        text += (
            f"\n{name}: at each severity and seed the row of the best validation WGA among "
            f"{', '.join(among[name])} (taken: {counts}).\n"
        )
    return text
