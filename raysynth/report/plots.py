"""The report's figures: SVG that takes the page's colours, and PNG for other uses."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from raysynth.evaluation.kinds import OURS
from raysynth.report.content import Content, Method
from raysynth.report.searched import VALIDATION, parameters, stopped
from raysynth.synthesis.timeline import WORDS, over_time

LOGARITHMIC = {"temperature", "learning_rate", "weight_decay", "head_weight_decay"}
COLUMNS = 3
# Colours stand for the page's CSS variables in the SVG and are themselves in the PNG.
INK, MUTED, GRID = "#1c2430", "#5d6878", "#d9dee6"
ACCENT, REFERENCE, POINT = "#b93a0b", "#7b8aa0", "#10151d"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    ACCENT: "--accent",
    REFERENCE: "--reference",
    POINT: "--point",
}
PART_COLOURS = {"unet": ACCENT, "decode": "#e9a23b", "score": "#2a9d8f", "encode": REFERENCE}
BINS = 80
RATIO_COLOURS = LinearSegmentedColormap.from_list(
    "ratio", ["#64748b", "#2a9d8f", "#e9a23b", ACCENT]
)
STYLE = {
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """One figure as inline SVG and as PNG; `alt` says in words what it shows."""

    name: str
    title: str
    alt: str
    svg: str
    png: bytes


@contextmanager
def styled() -> Iterator[None]:
    """Figures inside look like the page."""
    with matplotlib.rc_context(STYLE):
        yield


def methods_plot(content: Content) -> Plot | None:
    """WGA and AGA of every method on test: bars are means, dots are seeds."""
    if not content.methods:
        return None
    of = ", inferred groups" if content.inferred else ""
    titles = {"wga": f"Worst-group accuracy (WGA){of}", "aga": f"Average over groups (AGA){of}"}
    with styled():
        figure = Figure(figsize=(8.6, 0.62 * len(content.methods) + 0.9), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (measure, title) in zip(axes, titles.items(), strict=True):
            _bars(axis, content.methods, measure)
            axis.set_title(title, loc="left")
        said = "; ".join(
            f"{method.title} {100 * method.wga.mean:.1f} and {100 * method.aga.mean:.1f}"
            for method in content.methods
        )
        alt = f"WGA and AGA of each method on test, in percent: {said}"
        return plotted(figure, "methods", "WGA and AGA of each method", alt)


def _bars(axis: Any, methods: Sequence[Method], measure: str) -> None:
    for row, method in enumerate(reversed(methods)):
        spread = getattr(method, measure)
        colour = ACCENT if method.name == OURS else REFERENCE
        axis.barh(row, spread.mean, height=0.6, color=colour, zorder=2)
        jitter = np.linspace(-0.14, 0.14, len(spread.seeds)) if len(spread.seeds) > 1 else [0]
        axis.scatter(spread.seeds, row + np.asarray(jitter), s=13, color=POINT, zorder=4, lw=0)
        low, high = method.interval[measure]
        axis.plot([low, high], [row - 0.22] * 2, color=POINT, lw=1.1, zorder=4)
        right = max(high, *spread.seeds)
        axis.text(right + 0.02, row, f"{100 * spread.mean:.1f}", va="center", zorder=5)
    axis.set_yticks(range(len(methods)), [method.title for method in reversed(methods)])
    axis.set_xlim(0, 1.14)
    axis.set_xticks(np.linspace(0, 1, 6), [f"{x:.0f}" for x in np.linspace(0, 100, 6)])
    axis.grid(axis="x", zorder=0)
    axis.spines["bottom"].set_visible(False)


def search_plot(content: Content) -> Plot | None:
    """Validation WGA against trial, and against each hyperparameter; colour: synthetic ratio."""
    trials = content.trials
    if trials.empty:
        return None
    names = [name for name in parameters(content) if name != "ratio"]
    with styled():
        rows = -(-len(names) // COLUMNS)
        figure = Figure(figsize=(8.6, 2.7 + 2.0 * rows), layout="constrained")
        grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.3] + [1] * rows)
        first = figure.add_subplot(grid[0, :])
        _trials_in_order(figure, first, trials)
        for position, name in enumerate(names):
            row, column = divmod(position, COLUMNS)
            axis = figure.add_subplot(grid[1 + row, column], sharey=first)
            _trial_dots(axis, trials[name], trials)
            axis.set_title(name.replace("_", " "), loc="left")
            axis.tick_params(labelleft=column == 0, labelsize=9)
            if name in LOGARITHMIC:
                _decades(axis, trials[name])
        best = trials[VALIDATION].max()
        alt = (
            f"{len(trials)} trials, {int(stopped(trials).sum())} of them stopped early; validation "
            f"WGA from {100 * trials[VALIDATION].min():.1f} to {100 * best:.1f} %, the best at "
            f"trial {int(trials[VALIDATION].to_numpy().argmax()) + 1}"
        )
        return plotted(figure, "search", "Validation WGA of each trial", alt)


def _trials_in_order(figure: Figure, axis: Any, trials: Any) -> None:
    order = np.arange(1, len(trials) + 1)
    dots = _trial_dots(axis, order, trials)
    best = trials[VALIDATION].cummax()
    axis.step(order, best, where="post", color=MUTED, lw=1.2, zorder=1)
    axis.annotate(
        "best so far", (order[-1], best.iloc[-1]), (0, 4), textcoords="offset points", ha="right"
    )
    axis.set(xlabel="trial", ylabel="validation WGA, %")
    axis.set_ylim(max(0, trials[VALIDATION].min() - 0.06), min(1.02, best.max() + 0.08))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    bar = figure.colorbar(dots, ax=axis, pad=0.01, aspect=14)
    bar.set_label("synthetic ratio")
    bar.outline.set_visible(False)


def _decades(axis: Any, values: Any) -> None:
    """A logarithmic x axis with few, plain numbers."""
    axis.set_xscale("log")
    # Below one tick of its own LogLocator falls back to many linear ones.
    narrow = values.max() < 15 * max(values.min(), 1e-12)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1, 3), numticks=6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _trial_dots(axis: Any, x: Any, trials: Any) -> Any:
    ratio = trials["ratio"]
    top = max(float(ratio.max()), 1e-9)
    axis.grid()
    axis.set_axisbelow(True)
    early = stopped(trials).to_numpy()
    x, y = np.asarray(x), trials[VALIDATION].to_numpy()
    edge = RATIO_COLOURS(ratio.to_numpy() / top)
    kwargs = {"s": 26, "zorder": 3, "cmap": RATIO_COLOURS, "vmin": 0, "vmax": top}
    axis.scatter(x[early], y[early], facecolors="none", edgecolors=edge[early], s=24, zorder=3)
    return axis.scatter(x[~early], y[~early], c=ratio[~early], **kwargs)


def utilisation_plot(content: Content) -> Plot | None:
    """What the generating actors' devices did over time, and the seconds of every part."""
    used = content.generation.get("utilisation")
    if not used or not content.timeline.num_rows:
        return None
    with styled():
        figure = Figure(figsize=(8.6, 2.9), layout="constrained")
        time_axis, share_axis = figure.subplots(1, 2, width_ratios=(2.4, 1))
        edges, shares = over_time(content.timeline, min(BINS, content.timeline.num_rows))
        time_axis.stackplot(
            edges,
            [np.append(share, share[-1]) for share in shares.values()],
            step="post",
            colors=[PART_COLOURS[part] for part in shares],
            zorder=2,
        )
        time_axis.set(xlim=(0, edges[-1]), ylim=(0, 1), xlabel="seconds since the first batch")
        time_axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        time_axis.set_title("Actors' time in use, %", loc="left")
        time_axis.grid(axis="y", zorder=0)
        _parts(share_axis, used["parts"])
        told = ", ".join(f"{WORDS[p]} {100 * share:.0f} %" for p, share in used["parts"].items())
        alt = (
            f"The actors were busy {100 * used['busy']:.0f} % of {used['seconds']:.0f} seconds; of "
            f"all work {told}"
        )
        return plotted(figure, "utilisation", "What the generating actors did", alt)


def _parts(axis: Any, parts: Mapping[str, float]) -> None:
    upwards = list(parts)[::-1]
    for row, part in enumerate(upwards):
        share = parts[part]
        axis.barh(row, share, height=0.6, color=PART_COLOURS[part], zorder=2)
        axis.text(share + 0.02, row, f"{100 * share:.0f}", va="center")
    axis.set_yticks(range(len(parts)), [WORDS[part] for part in upwards])
    axis.set_xlim(0, 1.15)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_title("Share of all work, %", loc="left")


def plotted(figure: Figure, name: str, title: str, alt: str) -> Plot:
    """A figure as the page has it: `alt` says what is seen."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # laid out already
    figure.set_facecolor("white")
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160)
    svg = _inline(_numbered(buffer.getvalue(), name), alt)
    return Plot(name, title, alt, svg, picture.getvalue())


def _numbered(svg: str, name: str) -> str:
    """Ids by number: matplotlib hashes coordinates, whose last bits differ between processes."""
    for number, found in enumerate(dict.fromkeys(re.findall(r' id="([^"]+)"', svg))):
        own = f"{name}-{number}"
        svg = svg.replace(f'id="{found}"', f'id="{own}"')
        svg = svg.replace(f"#{found})", f"#{own})").replace(f'"#{found}"', f'"#{own}"')
    return svg


def _inline(svg: str, alt: str) -> str:
    """SVG for the body of a page: no prologue, fluid width, colours from the page's variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"|height="[^"]*pt"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
