"""The benchmark's records, and its table: WGA and AGA per row and severity, over seeds.

A record is one final classifier: `{row, kind, uses_validation, severity, seed, repetition, wga,
aga, weighted, groups, cell, ...}`, `cell` being the digest of what it came from. Rows of raysynth
are named by the benchmark; references, mixtures and controls, which many rows share, by their own
name, and whether they start pretrained (`raysynth.benchmark.titles`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from raysynth.benchmark.cells import LAST_STAGE, Cell
from raysynth.benchmark.faithful import fidelity_of
from raysynth.benchmark.titles import plain_title, reference_titles, without_row
from raysynth.errors import ConfigError
from raysynth.evaluation.kinds import KINDS, OURS, REFERENCE_KINDS
from raysynth.storage.files import read_json, read_record

LEVEL = 0.95
"""Of the intervals: Student's t over seeds."""
KEY = ("row", "severity", "seed", "repetition")
"""What names a record."""
TEXTS = ("row", "kind", "cell", "groups")
WHOLE = ("seed", "repetition")
SHARES = ("validation_wga", "wga", "aga")
"""What every record has beside its severity; other measures may be missing."""


@dataclass(frozen=True)
class Entry:
    """A row at a severity."""

    mean: float
    half: float
    """Half the width of the interval of the mean; NaN for one seed."""
    std: float
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        spread = "" if np.isnan(self.half) else f" ± {100 * self.half:.1f}"
        return f"{100 * self.mean:.1f}{spread}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `half_interval` is null for one seed."""
        return {
            "mean": self.mean,
            "std": self.std,
            "half_interval": None if np.isnan(self.half) else self.half,
            "seeds": list(self.seeds),
        }


def read_known(files: Sequence[str]) -> pd.DataFrame:
    """The records of earlier parts of a benchmark; without any, a table with no rows.

    Raises
    ------
    ConfigError
        A file is not there, or no `records.csv` of a benchmark.
    """
    parts = [pd.DataFrame(columns=["cell", "kind", *KEY])]
    for name in files:
        try:  # of digits only, a cell's digest is a text all the same
            part = pd.read_csv(name, dtype=dict.fromkeys(TEXTS, str))
        except (OSError, ValueError, OverflowError) as error:
            raise _no_records(name, f"cannot be read ({error!s:.200})") from None
        _check_records(part, name)
        parts.append(part)
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _check_records(part: pd.DataFrame, name: str) -> None:
    """Refuse a table that no benchmark wrote: what is missing, and the first foreign cell."""
    if missing := {*TEXTS, *KEY, *SHARES, "uses_validation"} - set(part.columns):
        raise _no_records(name, f"lacks {', '.join(sorted(missing))}")
    for key in SHARES:
        rows = ~_numbers(part[key]).between(0, 1)
        if rows.any():
            raise ConfigError(
                f"benchmark.records: {name}: {key} of {int(rows.sum())} record(s) is no share of 1 "
                f"(first: {str(part[key][rows].iloc[0])!r:.80}); a mean would leave them out. Fix: "
                "take the rows out, and their cells are run again"
            )
    kinds, used = part["kind"], part["uses_validation"]
    severity = pd.to_numeric(part["severity"], errors="coerce")
    wrong = {
        **{key: part[key].isna() for key in TEXTS},
        **{key: ~_numbers(part[key]).between(0, 2**53) for key in WHOLE},
        "kind": ~kinds.isin(list(KINDS)),
        "uses_validation": ~used.astype(str).isin(("True", "False")),
        "severity": ~(severity.between(0.5, 1) | (part["severity"] == "original")),
    }
    # Of every other measure there may be none: an older part, or one that does not exist.
    others = set(part.columns) - {*wrong, *SHARES}
    wrong |= {key: part[key].notna() & _numbers(part[key]).isna() for key in sorted(others)}
    for key, rows in wrong.items():
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            raise _no_records(
                name, f"has {str(part[key].iloc[row])!r:.80} as {key} in row {row + 1}"
            )


def _numbers(column: pd.Series) -> pd.Series:
    """Numbers as floats; NaN for what is none."""
    return pd.to_numeric(column, errors="coerce").astype(float)


def _no_records(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"benchmark.records: {name} {what}; expected a records.csv that `raysynth benchmark` "
        "wrote. Fix: correct the path, or write that part's table again"
    )


def read_records(
    cells: Sequence[Cell], shared: str, known: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One record per final classifier of the finished cells, each once; rows as configured.

    `known`: records of earlier parts; those of this benchmark's cells are taken as they are.
    """
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    titles = reference_titles(cells)
    for cell in cells:
        found = _of_cell(cell, shared, known)
        for record in found or _of_cell(cell.without_references, shared, known):
            if record["kind"] in REFERENCE_KINDS:
                plain = without_row(record["row"])
                record["row"] = titles.get((cell.row, plain), plain)
            records.setdefault(tuple(record[name] for name in KEY), record)
    order = {row: place for place, row in enumerate(dict.fromkeys(cell.row for cell in cells))}
    rows = sorted(records.values(), key=lambda record: order.get(record["row"], len(order)))
    return pd.DataFrame(rows)


def _of_cell(cell: Cell, shared: str, known: pd.DataFrame | None) -> list[dict[str, Any]]:
    folder = f"{shared}/{LAST_STAGE}-{cell.digest}"
    if read_json(f"{folder}.json") is not None:
        results = read_record(f"{folder}/results.json", "methods", kind=dict)
        named, shown = results["methods"].items(), fidelity_of(cell, shared)
        made = [record for name, values in named for record in _records(cell, name, values)]
        return [record | (shown if record["kind"] == OURS else {}) for record in made]
    if known is None:
        return []
    # A severity may be a number here and a word there, a row have another name; the cell knows.
    own = {"severity": cell.severity, "seed": cell.seed}
    found = known[known["cell"] == cell.digest].to_dict("records")
    return [
        {str(name): value for name, value in record.items()}
        | own
        | ({"row": cell.row} if record["kind"] == OURS else {})
        for record in found
    ]


def _records(cell: Cell, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    title = _title(cell, name, values["kind"])
    found = []
    for repetition in range(len(values["wga"]["seeds"])):
        measures = {
            measure: values[measure]["seeds"][repetition]
            for measure, spread in values.items()
            if isinstance(spread, Mapping) and "seeds" in spread
        }
        found.append(
            {
                "row": title,
                "kind": values["kind"],
                "uses_validation": bool(values["uses_validation"]),
                "severity": cell.severity,
                "seed": cell.seed,
                "repetition": repetition,
                "cell": cell.digest,
                "validation_wga": values["validation"]["wga"]["seeds"][repetition],
                **measures,
                **{f"synthetic_{key}": count for key, count in values.get("synthetic", {}).items()},
                "groups": json.dumps(
                    {group: each["seeds"][repetition] for group, each in values["groups"].items()}
                ),
            }
        )
    return found


def _title(cell: Cell, name: str, kind: str) -> str:
    """A row's name; mixtures train on the images of a row's generator."""
    if kind == "mixture":
        return f"{name} ({cell.row} images)"
    return cell.row if name == OURS else plain_title(cell.config, name, kind)


def entry(records: pd.DataFrame, measure: str) -> Entry:
    """Mean over run seeds (repetitions of a seed are averaged first) with its interval."""
    seeds = records.groupby("seed")[measure].mean().to_numpy()
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else 0.0
    half = float("nan")
    if len(seeds) > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(seeds) - 1) * std / np.sqrt(len(seeds)))
    return Entry(float(seeds.mean()), half, std, tuple(float(value) for value in seeds))


def entries(records: pd.DataFrame, measure: str) -> dict[str, dict[Any, Entry]]:
    """Row -> severity -> entry; rows in the order of `KINDS`, then of the benchmark."""
    order = {kind: position for position, kind in enumerate(KINDS)}
    kinds = records.drop_duplicates("row").set_index("row")["kind"]
    rows = sorted(kinds.index, key=lambda row: order.get(str(kinds[row]), len(order)))
    return {
        row: {
            severity: entry(part, measure)
            for severity, part in records[records["row"] == row].groupby("severity", sort=True)
        }
        for row in rows
    }


def validation_marks(records: pd.DataFrame) -> dict[str, str]:
    """Row -> "*" where it trains on validation images, else ""."""
    uses = records.drop_duplicates("row").set_index("row")["uses_validation"]
    return {str(row): "*" if used else "" for row, used in uses.items()}


def markdown(records: pd.DataFrame) -> str:
    """The table, in percent: WGA ± half its 95 % interval over seeds, and AGA."""
    severities = sorted(records["severity"].unique(), key=str)
    wga, aga = entries(records, "wga"), entries(records, "aga")
    about, marks = records.drop_duplicates("row").set_index("row"), validation_marks(records)
    lines = [
        "| row | kind | " + " | ".join(f"{severity}: WGA | AGA" for severity in severities) + " |",
        "| --- | --- |" + " ---: | ---: |" * len(severities),
    ]
    best = {s: max(w[s].mean for w in wga.values() if s in w) for s in severities}
    for row, at in wga.items():
        line = [f"{row}{marks[row]}", str(about["kind"][row])]
        for severity in severities:
            if severity not in at:
                line += ["–", "–"]
                continue
            text = str(at[severity])
            line.append(f"**{text}**" if at[severity].mean == best[severity] else text)
            line.append(f"{100 * aga[row][severity].mean:.1f}")
        lines.append("| " + " | ".join(line) + " |")
    lines += ["", _caption(records)]
    if about["uses_validation"].any():
        lines += ["", "\\* trains on validation images too."]
    for sentence in _shortages(records):
        lines += ["", sentence]
    return "\n".join(lines) + "\n"


def _caption(records: pd.DataFrame) -> str:
    """What the numbers are: of how many seeds, with which intervals, chosen by what."""
    seeds = records.groupby(["row", "severity"])["seed"].nunique()
    of = "of one run seed" if seeds.max() == 1 else f"mean of {seeds.max()} run seeds"
    if seeds.min() < seeds.max():
        of += f" (some rows: {seeds.min()})"
    if seeds.max() > 1:
        of += " ± half the 95 % interval of the mean (Student's t over seeds)"
        of += "; without an interval: one seed" if seeds.min() == 1 else ""
    return (
        f"Test accuracy, %, {of}. WGA: the worst group's; AGA: the mean of the groups; bold: the "
        "best WGA of a severity. Hyperparameters, stopping points and heads were chosen by "
        "validation WGA; test was read once per final classifier."
    )


def _shortages(records: pd.DataFrame) -> list[str]:
    """A sentence on the mixtures for which fewer synthetic images were kept than they ask for."""
    if "synthetic_wanted" not in records:
        return []
    sums = records.groupby("row", sort=False)[["synthetic_used", "synthetic_wanted"]].sum()
    shares = (sums["synthetic_used"] / sums["synthetic_wanted"]).items()
    short = [f"{row} {100 * share:.0f} %" for row, share in shares if share < 1]
    said = "Of the synthetic images that they ask for, mixtures had, where fewer were kept: "
    return [said + ", ".join(short) + "."] if short else []


def as_json(records: pd.DataFrame) -> str:
    """`{row: {kind, uses_validation, severities: {severity: {wga, aga, ...}}}}`."""
    about = records.drop_duplicates("row").set_index("row")
    skip = {"row", "kind", "uses_validation", "severity", "seed", "repetition", "groups", "cell"}
    measures = [name for name in records.columns if name not in skip]
    found: dict[str, Any] = {}
    for row in about.index:
        own = {key: about[key][row] for key in ("kind", "uses_validation")}
        found[row] = {k: v.item() if hasattr(v, "item") else v for k, v in own.items()}
        found[row]["severities"] = {}
    for measure in measures:
        complete = records.dropna(subset=[measure])
        for row, at in entries(complete, measure).items():
            for severity, value in at.items():
                here = found[row]["severities"].setdefault(str(severity), {})
                here[measure] = value.to_dict()
    return json.dumps(found, indent=1) + "\n"
