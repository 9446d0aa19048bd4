"""What a cell's kept images show and how they vary, as columns of its records, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from raysynth.benchmark.cells import Cell
from raysynth.errors import DataError
from raysynth.stages.record import shared_name
from raysynth.storage.files import read_record

STAGE = "fidelity"
SPREADS = ("brightness", "contrast", "red_green", "blue_yellow")
"""Of `fidelity.statistics`."""
COLUMNS = {
    "shown_label": "right label",
    "shown_label_real": "real",
    "frechet": "Fréchet",
    "frechet_floor": "floor",
    **{f"spread_{name}": name.replace("_", "–") for name in SPREADS},
}
"""Column of the records -> its head in the table."""


def fidelity_of(cell: Cell, shared: str) -> dict[str, float]:
    """The columns of a cell whose fidelity was measured; empty where it was not.

    Means over groups, but for spreads (ratios to real images'), whose mean is geometric; a group
    that is too small to be judged or measured is in none.
    """
    if STAGE not in cell.stages:
        return {}
    try:
        folder = f"{shared}/{shared_name(STAGE, cell.stages[STAGE])}"
        groups = read_record(f"{folder}/fidelity.json", "groups", kind=dict)["groups"]
    except DataError:
        return {}
    return summary(list(groups.values()))


def summary(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The columns of the groups of a fidelity.json."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float | None) -> None:
        if value is not None:
            found.setdefault(name, []).append(value)

    for group in groups:
        agreement = group.get("agreement") or {}
        distance = (group.get("distances") or {}).get("frechet") or {}
        add("shown_label", (agreement.get("kept") or {}).get("label"))
        add("shown_label_real", (agreement.get("real") or {}).get("label"))
        add("frechet", distance.get("value"))
        add("frechet_floor", distance.get("floor"))
        for name in SPREADS:
            add(f"spread_{name}", ((group.get("spread") or {}).get(name) or {}).get("ratio"))
    return {name: _mean(name, values) for name, values in found.items()}


def _mean(name: str, values: list[float]) -> float:
    if name.startswith("spread_") and min(values) > 0:
        return statistics.geometric_mean(values)
    return statistics.fmean(values)


def fidelity_markdown(records: pd.DataFrame) -> str:
    """A table per severity of the rows whose images were measured; empty where none was."""
    known = [name for name in COLUMNS if name in records]
    measured = records.dropna(subset=known, how="all") if known else records.iloc[:0]
    text = ""
    for severity, part in measured.groupby("severity", sort=True):
        means = part.groupby("row", sort=False)[known].mean()
        text += f"\nKept images at severity {severity}, means over groups and run seeds: the share "
        text += "whose label a probe of real images tells, beside that of held-out real images; "
        text += "Fréchet distance to real images and between two halves of them; spreads over "
        text += "those of real images.\n\n"
        text += "| row | " + " | ".join(COLUMNS[name] for name in known) + " |\n"
        text += "| --- |" + " ---: |" * len(known) + "\n"
        for row, values in means.iterrows():
            cells = [_shown(name, float(values[name])) for name in known]
            text += f"| {row} | " + " | ".join(cells) + " |\n"
    return text


def _shown(name: str, value: float) -> str:
    if pd.isna(value):
        return "–"
    return f"{100 * value:.0f} %" if name.startswith("shown") else f"{value:.2f}"
