"""WGA with its interval over seeds: a line per row against severity, or a list of rows."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raysynth.benchmark.table import entries
from raysynth.evaluation.kinds import KINDS
from raysynth.report.plots import STYLE

WIDTH = 4.2
"""Inches of one panel."""
SPREAD = 0.5
"""Widest distance of a severity's rows, in severities: intervals must not cover each other."""
ROW_HEIGHT = 0.24
"""Inches of one row of a list."""
SEEDS_BELOW = 0.28
"""Distance of a list's seeds from their mean, in rows."""
STYLES = ("-", "--", ":")
"""Of every ten rows."""


def wga_plot(records: pd.DataFrame, baseline: str = "") -> bytes:
    """A PNG: a panel of lines per kind of row, or for one severity a list of all rows.

    `baseline`: row whose mean the list marks.
    """
    if records["severity"].nunique() == 1:
        return _rows_plot(records, baseline)
    return _severity_plot(records)


def _rows_plot(records: pd.DataFrame, baseline: str) -> bytes:
    """Means and intervals from top to bottom, the seeds as small points."""
    found = {row: next(iter(at.values())) for row, at in entries(records, "wga").items()}
    kind_of = records.drop_duplicates("row").set_index("row")["kind"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.9 + ROW_HEIGHT * len(found)), layout="constrained")
        axis = figure.subplots()
        colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
        for number, kind in enumerate(KINDS):
            own = [
                (place, at) for place, (row, at) in enumerate(found.items()) if kind_of[row] == kind
            ]
            if own:
                places, at = zip(*own, strict=True)
                half = [np.nan_to_num(each.half) for each in at]
                means = [each.mean for each in at]
                look = {"color": colours[number], "label": KINDS[kind].rows}
                axis.errorbar(means, places, xerr=half, fmt="o", ms=5, lw=1.4, **look)
                seeds = [(wga, place + SEEDS_BELOW) for place, each in own for wga in each.seeds]
                x, y = np.array(seeds).T
                axis.scatter(x, y, s=5, color=colours[number], alpha=0.6)
        if baseline in found:
            axis.axvline(found[baseline].mean, color="0.4", lw=0.9, ls="--", zorder=0)
        axis.set_yticks(range(len(found)), list(found))
        axis.set(xlim=(0, 1), ylim=(len(found) - 0.4, -0.6))
        axis.set_xlabel(f"worst-group accuracy on test, %, severity {records['severity'].iloc[0]}")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        axis.grid(axis="x")
        axis.legend(fontsize=8, loc="lower left")
        return _png(figure)


def _severity_plot(records: pd.DataFrame) -> bytes:
    """A panel per kind of row."""
    kinds = [kind for kind in KINDS if (records["kind"] == kind).any()]
    severities = sorted(records["severity"].unique(), key=str)
    found = entries(records, "wga")
    kind_of = records.drop_duplicates("row").set_index("row")["kind"]
    with matplotlib.rc_context(STYLE):
        longest = max(sum(kind_of[row] == kind for row in found) for kind in kinds)
        size = (WIDTH * len(kinds) + 0.6, 4.2 + 0.19 * longest)
        figure = Figure(figsize=size, layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True))
        colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
        for axis, kind in zip(panels, kinds, strict=True):
            rows = [row for row in found if kind_of[row] == kind]
            for number, row in enumerate(rows):
                shift = (number - (len(rows) - 1) / 2) * min(0.05, SPREAD / len(rows))
                look = {
                    "color": colours[number % len(colours)],
                    "linestyle": STYLES[number // len(colours) % len(STYLES)],
                }
                _line(axis, severities, found[row], shift, label=row, **look)
            axis.set_title(KINDS[kind].rows, loc="left")
            axis.set_xticks(range(len(severities)), [str(s) for s in severities])
            axis.set(xlabel="severity", xlim=(-0.3, len(severities) - 0.7), ylim=(0, 1))
            axis.grid(axis="y")
            place = {"loc": "upper left", "bbox_to_anchor": (0, -0.13), "borderaxespad": 0}
            axis.legend(fontsize=8, handlelength=2.4, labelspacing=0.25, **place)
        panels[0].set_ylabel("worst-group accuracy on test, %")
        panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        return _png(figure)


def _png(figure: Figure) -> bytes:
    figure.set_facecolor("white")
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    return picture.getvalue()


def _line(axis: Any, severities: list[Any], at: dict[Any, Any], shift: float, **look: Any) -> None:
    x = [position + shift for position, severity in enumerate(severities) if severity in at]
    y = [at[severity].mean for severity in severities if severity in at]
    half = [np.nan_to_num(at[severity].half) for severity in severities if severity in at]
    axis.errorbar(x, y, yerr=half, marker="o", ms=4, lw=1.4, elinewidth=0.9, **look)
