"""The page of a comparison: grids, a chart and pictures of every group, in one file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from raysynth.compare.grids import beside
from raysynth.compare.read import Known, methods_of
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.pages import data_uri, templates
from raysynth.references.titles import title_of
from raysynth.storage.tables import groups_of, read_table, split_files
from raysynth.strips import mosaic, png, spaced, thumbnails

COLUMNS, ROWS = 6, 2
COLOURS = ("#c2410c", "#2563eb", "#0f766e", "#7c3aed", "#a16207", "#be185d")


@dataclass(frozen=True)
class Picture:
    """A strip as the page shows it: what is on it, its source, its size in pixels."""

    told: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Sheet:
    """One group: real images, and what each run kept of it."""

    group: str
    real: Picture | None
    kept: Sequence[Picture | None]


def render(runs: Sequence[Known], names: Sequence[str]) -> str:
    """The whole page; nothing it needs is outside of it."""
    page: str = (
        templates("raysynth.compare")
        .get_template("compare.html.j2")
        .render(
            names=names,
            runs=runs,
            grids=beside(runs, names),
            chart=_chart(runs, names),
            told=_told(runs, names),
            sheets=_sheets(runs),
        )
    )
    return page


def _told(runs: Sequence[Known], names: Sequence[str]) -> str:
    """The chart in words."""
    found = [
        f"{name} {100 * best['mean']:.1f} %"
        for name, run in zip(names, runs, strict=True)
        if (best := run.accuracy(run.shipped, "wga"))
    ]
    return f"Worst-group accuracy of what each run ships: {', '.join(found) or 'none is there'}"


def _chart(runs: Sequence[Known], names: Sequence[str]) -> str:
    """WGA of every method in every run, as SVG; "" where nothing was measured."""
    methods = methods_of(runs)
    if not methods:
        return ""
    figure = Figure(figsize=(8, 0.6 + 0.22 * len(methods) * (len(runs) + 1)), layout="constrained")
    axes = figure.subplots()
    ticks = []
    for number, method in enumerate(reversed(methods)):
        base = number * (len(runs) + 1)
        ticks.append(base + (len(runs) - 1) / 2)
        for place, run in enumerate(runs):
            if (found := run.accuracy(method, "wga")) is None:
                continue
            at, colour = base + len(runs) - 1 - place, COLOURS[place % len(COLOURS)]
            mean, std = 100 * found["mean"], 100 * found["std"]
            label = names[place] if number == 0 else None
            axes.barh(at, mean, 0.8, color=colour, label=label)
            if len(found["seeds"]) > 1:
                axes.plot([mean - std, mean + std], [at, at], color="#1c2430", lw=1.2)
    axes.set_yticks(ticks, [title_of(method) for method in reversed(methods)])
    axes.set_xlim(0, 100)
    axes.set_xlabel("worst-group accuracy on test, %; line: one standard deviation to both sides")
    axes.spines[["top", "right"]].set_visible(False)
    if len(methods) > 1 or len(runs) > 1:
        figure.legend(loc="outside upper left", ncols=min(len(runs), 4), frameon=False)
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    return "<svg" + out.getvalue().partition("<svg")[2]  # without XML's head


def _sheets(runs: Sequence[Known]) -> list[Sheet]:
    """Every group of the runs with its pictures; runs of other groups have none of it."""
    strips = [_kept(run) for run in runs]
    first = next((real for run in runs if (real := _real(run))), {})
    names = dict.fromkeys([*first, *(name for one in strips for name in one)])
    return [Sheet(n, first.get(n), [one.get(n) for one in strips]) for n in names]


def _real(run: Known) -> dict[str, Picture]:
    """Group -> real training images of it."""
    if not run.real:
        return {}
    table = read_table(run.real, ["id", "group"], split_files(run.real, "train"))
    ids, group = np.array(table["id"].to_pylist()), table["group"].to_numpy()
    return _pictures(run.real, ids, group, groups_of(table.schema), "real images")


def _kept(run: Known) -> dict[str, Picture]:
    """Group -> images that a run kept of it, evenly from the best to the last."""
    selection, synthetic = run.place("selection"), run.place("synthesis")
    if not (selection and synthetic):
        return {}
    table = read_table(selection, ["id", "group", "score", "kept"])
    ids, group = np.array(table["id"].to_pylist()), table["group"].to_numpy()
    order = np.argsort(-table["score"].to_numpy(), kind="stable")
    order = order[table["kept"].to_numpy().astype(bool)[order]]
    return _pictures(
        synthetic, ids[order], group[order], _groups(run), "generated images that were kept"
    )


def _groups(run: Known) -> Groups:
    """Those of its training images."""
    files = split_files(run.real, "train")[:1]
    return groups_of(read_table(run.real, ["group"], files).schema)


def _pictures(
    place: str, ids: np.ndarray, group: np.ndarray, groups: Groups, told: str
) -> dict[str, Picture]:
    """Group -> a strip of at most COLUMNS x ROWS of its images, evenly over the given order."""
    chosen = {}
    for number, name in enumerate(groups.names):
        own = ids[group == number]
        if len(own):
            chosen[name] = own[spaced(len(own), COLUMNS * ROWS)].tolist()
    try:
        found = thumbnails(place, [identity for own in chosen.values() for identity in own])
    except DataError:  # tables that were cut down or moved: the numbers are there all the same
        return {}
    return {
        name: _picture([found[each] for each in own], f"{len(own)} {told} of {name}")
        for name, own in chosen.items()
    }


def _picture(images: Sequence[Image.Image], told: str) -> Picture:
    strip = mosaic(images, COLUMNS)
    assert strip is not None
    scale = max(1, round(48 / images[0].width))
    return Picture(told, data_uri(png(strip)), strip.width * scale, strip.height * scale)
