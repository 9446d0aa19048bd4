"""docs/images/results.png: the first table of docs/results.md as a chart."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent
COLOURS = ("#5b6977", "#7a5195", "#a8670c", "#17776b", "#1d2733")
APART = {"`clip_balanced_head`": 3.5, "`clustered_dreambooth`": -1.5}
"""Labels that would lie on another one: points up or down."""


def rows() -> tuple[list[str], list[tuple[str, list[float], list[float]]]]:
    """Severities, and (method, WGA, half an interval) of the table's rows."""
    table = (DOCS / "results.md").read_text().partition("| method |")[2].partition("\n\n")[0]
    heads, _, *lines = table.splitlines()
    found = []
    for line in lines:
        method, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        pairs = [[float(number) for number in cell.split("±")] for cell in cells]
        found.append((method, [mean for mean, _ in pairs], [half for _, half in pairs]))
    return [head.strip() for head in heads.strip("|").split("|")], found


def main() -> None:
    """Draw it."""
    severities, methods = rows()
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for (method, means, halves), colour in zip(methods, COLOURS, strict=True):
        places = range(len(severities))
        axes.errorbar(places, means, halves, color=colour, lw=2, marker="o", ms=5, capsize=3)
        name, code = re.match(r"(.+?), (`\w+`)$", method).groups()
        at = means[-1] + APART.get(code, 0)
        axes.annotate(
            name,
            (len(severities) - 1, at),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold" if name.startswith("raysynth") else "normal",
            fontsize=9,
        )
    axes.set_xticks(range(len(severities)), severities)
    axes.set_xlim(-0.15, len(severities) + 1.3)
    axes.set_ylim(-3, 100)
    axes.set_xlabel("severity: share of bias-aligned images in a class", loc="left")
    axes.set_ylabel("worst-group accuracy on test, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e7eb")
    axes.set_axisbelow(True)
    figure.savefig(DOCS / "images/results.png", dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main()
