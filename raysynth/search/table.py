"""trials.parquet: a row per trial at its best head, and all its heads in a list column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from ray import tune

from raysynth.errors import DamagedError, reason_of
from raysynth.search.trial import read
from raysynth.terminal import masked
from raysynth.training.two_stage import HEAD, REAL_SHARE, SEARCHED

HEADS = pa.struct(
    [
        *[(name, pa.float64()) for name in HEAD],
        ("validation_wga", pa.float64()),
        ("validation_aga", pa.float64()),
        ("step", pa.int64()),
    ]
)
TRIALS = pa.schema(
    [
        ("trial", pa.string()),
        ("ratio", pa.float64()),
        *[(name, pa.float64()) for name in SEARCHED],
        *HEADS,
        ("reached", pa.int64()),
        ("seconds", pa.float64()),
        ("heads", pa.list_(HEADS)),
    ]
)
WITH_SHARES = TRIALS.insert(2, pa.field(REAL_SHARE, pa.float64()))
"""The same where `search.real_shares` are searched."""


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """trials.parquet."""
    schema = WITH_SHARES if any(REAL_SHARE in row for row in rows) else TRIALS
    return pa.Table.from_pylist(list(rows), schema)


def rows_of(results: tune.ResultGrid, folder: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A row per trial, and the reasons of those that failed.

    `folder`: the experiment's, which holds the trials' reports; raises DamagedError where Tune
    remembers more of a trial's reports than are there.
    """
    rows, failed = [], {}
    for index in range(len(results)):
        result = results[index]
        history = result.metrics_dataframe
        last = result.metrics or {}
        trial, made = str(last.get("trial_id", index)), int(last.get("training_iteration", 0))
        if result.error is not None or not made or result.config is None:
            failed[trial] = (
                reason_of(result.error) if result.error is not None else "it reported nothing"
            )
            continue
        found = [] if history is None else history.to_dict("records")
        reports = [_nested(report) for report in found]
        if len(reports) < made:
            raise DamagedError(
                f"{masked(folder)}: {len(reports)} of {made} reports of trial {trial} can be read. "
                "Fix: delete it, and run again: the search is made again",
                folder,
            )
        rows.append(row_of(trial, result.config, reports))
    return rows, failed


def row_of(
    trial: str, parameters: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The row of a trial from its reports: every head at its best evaluation, the best in front."""
    heads = []
    for key in reports[0]["heads"]:
        at = max(reports, key=lambda report: _order(report["heads"][key]))
        metrics = at["heads"][key]
        heads.append(
            {
                **read(key)._asdict(),
                "validation_wga": float(metrics["wga"]),
                "validation_aga": float(metrics["aga"]),
                "step": int(at["reached"]),
            }
        )
    return {
        "trial": trial,
        **{name: parameters[name] for name in searched(parameters)},
        **max(heads, key=lambda head: (head["validation_wga"], head["validation_aga"])),
        "reached": max(int(report["reached"]) for report in reports),
        "seconds": max(float(report["seconds"]) for report in reports),
        "heads": heads,
    }


def searched(parameters: Mapping[str, Any]) -> list[str]:
    """Names of the knobs of an encoder's training that trials set."""
    return [name for name in ("ratio", REAL_SHARE, *SEARCHED) if name in parameters]


def _order(metrics: Mapping[str, float]) -> tuple[float, float]:
    return metrics["wga"], metrics["aga"]


def _nested(report: Mapping[str, Any]) -> dict[str, Any]:
    """Tune flattens what was reported to `heads/<head as it is written>/<metric>`."""
    heads: dict[str, dict[str, float]] = {}
    for key, value in report.items():
        if key.startswith("heads/"):
            _, head, metric = key.split("/")
            heads.setdefault(head, {})[metric] = value
    return {**report, "heads": heads}
