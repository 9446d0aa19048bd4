"""Runs side by side as grids of words: what the terminal and the page both show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from raysynth.compare.read import Known, differences, groups_of, methods_of
from raysynth.jobs.cells import CELLS, counted
from raysynth.jobs.status import AT_WORK, Status
from raysynth.pace import duration
from raysynth.references.titles import title_of
from raysynth.terminal import clipped, masked

NONE = "–"
LONGEST = 60
"""Characters of a setting that are shown."""


@dataclass(frozen=True)
class Grid:
    """A table: its title, what its numbers are, the head, rows of words."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    """Columns that are words; the others are numbers."""


def listed(runs: Sequence[Known], benchmarks: Sequence[Status] = ()) -> Grid:
    """A row for each run, and below them the benchmarks: `raysynth runs`."""
    head = ("run", "state", "data set", "severity", "generator", "ships", "WGA", "AGA", "when")
    note = "Of what is shipped: test accuracy, %."
    for each in benchmarks:
        cells = counted(each.record[CELLS], at_work=each.state in AT_WORK)
        note += f"\nBenchmark {masked(each.root)}: {each.state}, cells {cells}"
    return Grid("Runs", note, head, [_row(r) for r in runs], 6)


def _row(run: Known) -> list[str]:
    when = run.status.record.get("updated")
    return [
        run.name,
        run.status.state,
        run.data,
        run.severity,
        str(run.settings.get("generator", "")),
        title_of(run.shipped) if run.shipped else NONE,
        spread(run.accuracy(run.shipped, "wga")),
        spread(run.accuracy(run.shipped, "aga")),
        f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M}" if when else NONE,
    ]


def beside(runs: Sequence[Known], names: Sequence[str]) -> list[Grid]:
    """All grids of a comparison, `names`: what the runs are called; empty ones are left out."""
    grids = [
        *(_accuracies(runs, names, key) for key in ("wga", "aga")),
        _groups(runs, names),
        _fidelity(runs, names),
        _costs(runs, names),
        _settings(runs, names),
    ]
    return [grid for grid in grids if grid.rows]


def _accuracies(runs: Sequence[Known], names: Sequence[str], key: str) -> Grid:
    """Methods by runs; * marks what a run ships."""
    rows = []
    for method in methods_of(runs):
        cells = [spread(run.accuracy(method, key)) + "*" * (method == run.shipped) for run in runs]
        rows.append([title_of(method), *cells])
    said = {"wga": "Worst-group accuracy (WGA)", "aga": "Average over groups (AGA)"}[key]
    note = "Test, %, mean ± standard deviation over seeds. * is shipped."
    return Grid(said, note, ("method", *names), rows)


def _groups(runs: Sequence[Known], names: Sequence[str]) -> Grid:
    """Groups by runs, of what each ships."""
    rows = []
    for group in groups_of(runs):
        found = [run.methods.get(run.shipped, {}).get("groups", {}).get(group) for run in runs]
        rows.append([group, *map(spread, found)])
    ships = [f"{n}: {title_of(r.shipped)}" for n, r in zip(names, runs, strict=True) if r.shipped]
    note = f"Test accuracy of what is shipped ({'; '.join(ships)}), %."
    return Grid("Accuracy per group", note, ("group", *names), rows)


def _fidelity(runs: Sequence[Known], names: Sequence[str]) -> Grid:
    """Share of the kept images that show their label, and images kept, per group."""
    told = [run.results.get("fidelity", {}).get("groups", {}) for run in runs]
    rows = []
    for group in dict.fromkeys(name for one in told for name in one):
        rows.append([group, *(_agreement(one.get(group, {})) for one in told)])
    note = (
        "Kept images that show their label, as a judge sees it that knows the real ones, %; behind "
        "it the same of the real images."
    )
    return Grid("Do generated images show their label", note, ("group", *names), rows)


def _agreement(found: Mapping[str, Any]) -> str:
    sides = found.get("agreement", {})
    kept, real = (sides.get(of, {}).get("label") for of in ("kept", "real"))
    behind = NONE if real is None else f"{100 * real:.0f}"
    return NONE if kept is None else f"{100 * kept:.0f} ({behind})"


def _costs(runs: Sequence[Known], names: Sequence[str]) -> Grid:
    """Seconds of stages, and what the synthesis says of its pace."""
    seconds = [run.seconds for run in runs]
    rows = []
    for stage in dict.fromkeys(name for one in seconds for name in one):
        rows.append([stage, *(duration(o[stage]) if stage in o else NONE for o in seconds)])
    if rows:
        rows.append(["all stages, summed", *(duration(sum(one.values())) for one in seconds)])
        rows.append(["images generated", *(_fact(run, "rows", ",.0f") for run in runs)])
        rows.append(["images a second", *(_fact(run, "images_per_second", ".3g") for run in runs)])
    note = "Wall time of each stage; some run beside others."
    return Grid("What it cost", note, ("stage", *names), rows)


def _fact(run: Known, key: str, form: str) -> str:
    value = run.facts("synthesis").get(key)
    return format(value, form) if isinstance(value, int | float) else NONE


def _settings(runs: Sequence[Known], names: Sequence[str]) -> Grid:
    rows = [[key, *map(written, values)] for key, values in differences(runs)]
    note = "Those that are not the same in all of the runs; every other one is."
    return Grid("Settings that differ", note, ("setting", *names), rows)


def spread(found: Mapping[str, Any] | None) -> str:
    """`78.5 ± 4.8`, in percent; of one seed `78.5`; of nothing a dash."""
    if not found or found.get("mean") is None:
        return NONE
    text = f"{100 * found['mean']:.1f}"
    return text + (f" ± {100 * found['std']:.1f}" if len(found.get("seeds", ())) > 1 else "")


def written(value: Any) -> str:
    """A setting as JSON, but words without quotes."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return clipped(text, LONGEST)


def named(runs: Sequence[Known]) -> list[str]:
    """What the runs are called: by name, or by more of their path where names are the same."""
    parts = [run.root.rstrip("/").split("/") for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(map(tuple, parts))):
            return names
    return [run.root for run in runs]
