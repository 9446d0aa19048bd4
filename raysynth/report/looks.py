"""Figures of the images themselves: scores of kept and rejected ones, brightness and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from raysynth.report.content import Content
from raysynth.report.gallery import Gallery
from raysynth.report.plots import ACCENT, POINT, REFERENCE, Plot, plotted, styled

MOST_GROUPS = 24
"""Beyond, a figure of all groups is none that can be read."""
COLUMNS = 4
BINS = 24
MEASURES = {
    "brightness": lambda rgb: rgb.mean(axis=1),
    "red minus green": lambda rgb: rgb[:, 0] - rgb[:, 1],
    "blue minus yellow": lambda rgb: rgb[:, 2] - rgb[:, :2].mean(axis=1),
}
"""Of mean colours [N, 3]."""


def scores_plot(content: Content, gallery: Gallery) -> Plot | None:
    """Histogram of the selection score of every group's kept and rejected images."""
    names, made = content.groups.names, gallery.made
    if len(names) > MOST_GROUPS or made.empty:
        return None
    edges = np.linspace(made["score"].min(), made["score"].max() + 1e-6, BINS + 1)
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    with styled():
        figure = Figure(figsize=(8.6, 0.5 + 1.6 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, squeeze=False)).ravel()
        for axis, (g, name) in zip(axes, enumerate(names), strict=False):
            parts = scores_of(gallery, g)
            axis.hist(
                list(parts.values()),
                bins=edges.tolist(),
                stacked=True,
                color=[ACCENT, REFERENCE],
                label=list(parts),
            )
            axis.set_title(_clipped(name), loc="left")
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        axes[0].legend(loc="upper left", fontsize=8)
        figure.supxlabel("score of selection", fontsize=10)
        said = "; ".join(_scores_in_words(gallery, g, name) for g, name in enumerate(names))
        return plotted(figure, "scores", "Scores of kept and rejected images", said)


def scores_of(gallery: Gallery, group: int) -> dict[str, NDArray[np.float64]]:
    """Scores of a group's images, kept and not."""
    rows = gallery.made[gallery.made["group"] == group]
    kept = rows["kept"].to_numpy(bool)
    score = rows["score"].to_numpy(np.float64)
    return {"kept": score[kept], "rejected": score[~kept]}


def _scores_in_words(gallery: Gallery, group: int, name: str) -> str:
    parts = scores_of(gallery, group)
    medians = [f"{np.median(part):.2f}" if len(part) else "none" for part in parts.values()]
    return f"{name}: median score {medians[0]} of kept, {medians[1]} of rejected images"


def looks_plot(content: Content, gallery: Gallery) -> Plot | None:
    """Brightness and colours of every group's real and kept images: median and middle half."""
    names = content.groups.names
    if len(names) > MOST_GROUPS:
        return None
    with styled():
        figure = Figure(figsize=(8.6, 0.9 + 0.5 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(MEASURES), sharey=True)
        for axis, (measure, of) in zip(axes, MEASURES.items(), strict=True):
            for row, g in enumerate(reversed(range(len(names)))):
                for shift, (kind, rgb) in zip((0.16, -0.16), _sides(gallery, g), strict=True):
                    colour = POINT if kind == "real" else ACCENT
                    _middle(axis, row + shift, of(rgb), colour, kind if not row else None)
            axis.set_title(measure, loc="left")
            axis.grid(axis="x")
            axis.set_axisbelow(True)
        axes[0].set_yticks(range(len(names)), [_clipped(name) for name in reversed(names)])
        axes[0].set_ylim(-0.6, len(names) - 0.4)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=9)
        said = "; ".join(_looks_in_words(gallery, g, name) for g, name in enumerate(names))
        return plotted(figure, "looks", "Brightness and colours of real and kept images", said)


def _sides(gallery: Gallery, group: int) -> list[tuple[str, NDArray[np.float64]]]:
    """Mean colours [N, 3] of a group's real and kept images."""
    rows = gallery.made[(gallery.made["group"] == group) & gallery.made["kept"]]
    sides: dict[str, Sequence[str]] = {
        "real": gallery.real.get(group, []),
        "synthetic, kept": rows["id"].tolist(),
    }
    return [
        (kind, np.array([gallery.colours[i] for i in ids]).reshape(-1, 3))
        for kind, ids in sides.items()
    ]


def _middle(axis: Any, row: float, values: NDArray[Any], colour: str, label: str | None) -> None:
    if len(values):
        low, middle, high = np.percentile(values, (25, 50, 75))
        axis.plot([low, high], [row, row], color=colour, lw=2.4, solid_capstyle="round")
        axis.scatter([middle], [row], color=colour, s=26, zorder=3, label=label)


def _looks_in_words(gallery: Gallery, group: int, name: str) -> str:
    (_, real), (_, kept) = _sides(gallery, group)
    means = [f"{100 * rgb.mean():.0f} %" if len(rgb) else "none" for rgb in (real, kept)]
    return f"{name}: mean brightness {means[0]} of real, {means[1]} of kept images"


def _clipped(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
