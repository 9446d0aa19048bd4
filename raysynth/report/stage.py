"""The report stage: index.html, results.json, contact sheets and plots as PNG."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from raysynth.progress import Progress
from raysynth.report.content import Content, read_content
from raysynth.report.copies import PairSheet, pair_sheets
from raysynth.report.gallery import read_gallery
from raysynth.report.looks import looks_plot, scores_plot
from raysynth.report.misread import misread
from raysynth.report.page import Shown, render, render_gallery
from raysynth.report.plots import methods_plot, search_plot, utilisation_plot
from raysynth.report.results import results
from raysynth.report.sheets import Sheet, contact_sheets, poster
from raysynth.report.tested import read_tested
from raysynth.stages.run import Run
from raysynth.stages.stage import Work
from raysynth.storage.files import write_atomic
from raysynth.strips import captioned, png

LONGEST = 50
"""Characters of a group's name in a file's; 255 bytes is what file systems take."""


def run_report(config: Any, run: Run, work: str, progress: Progress) -> dict[str, Any]:
    """Write the report of a run whose other stages are finished.

    Writes to `work` index.html and gallery.html (self-contained: no network), gallery/ (images in
    full size, where they are larger than 96 pixels), results.json,
    sheets/<label>-<attribute>-<cluster>.png, copies/<label>-<attribute>.png and plots/<name>.png.

    Returns
    -------
    Facts: rows (group-clusters shown).
    """
    progress.update("reading the stages")
    content, tested = read_content(config, run), read_tested(run)
    progress.update("contact sheets")
    sheets, pairs = contact_sheets(content, run), pair_sheets(content, run)
    progress.update("gallery")
    gallery = read_gallery(content, run, work)
    progress.update("plots")
    plots = [plot(content) for plot in (methods_plot, search_plot, utilisation_plot)]
    if gallery is not None:
        plots += [scores_plot(content, gallery), looks_plot(content, gallery)]
    drawn = {plot.name: plot for plot in plots if plot is not None}
    progress.update("page")
    files = {
        "results.json": json.dumps(results(content, tested), indent=1, allow_nan=False).encode()
    }
    files |= {f"plots/{name}.png": plot.png for name, plot in drawn.items()}
    files |= _pictures(content, sheets, pairs)
    shown = Shown(sheets, pairs, drawn, misread(content, tested, run), gallery)
    files["index.html"] = render(content, tested, shown).encode()
    if gallery is not None:
        files["gallery.html"] = render_gallery(content, gallery).encode()
    for name, data in files.items():
        write_atomic(f"{work}/{name}", data)
    return {"rows": len(sheets)}


def _pictures(
    content: Content, sheets: Sequence[Sheet], pairs: Sequence[PairSheet]
) -> dict[str, bytes]:
    """The contact sheets and the pairs of copies as files, by name."""
    titles = [" ".join(name.split()) for name in content.groups.names]
    names, found = file_names(titles), {}
    for sheet in sheets:
        title, name = titles[sheet.group], f"{names[sheet.group]}-{sheet.cluster}"
        found[f"sheets/{name}.png"] = png(poster(f"{title}, cluster {sheet.cluster}", sheet))
    for pair in pairs:
        title = f"{titles[pair.group]}: generated above, nearest training images below"
        found[f"copies/{names[pair.group]}.png"] = png(captioned(title, pair.strips))
    return found


def file_names(groups: Sequence[str]) -> list[str]:
    """A file's name for every group: its own, of plain characters and clipped.

    With the index before it where two would be one file: `a b` and `a_b`, or `A` and `a` on a disk
    that does not tell them apart.
    """
    plain = [re.sub(r"[^\w.-]", "_", name.replace("/", "-"))[:LONGEST] for name in groups]
    if len({unicodedata.normalize("NFKC", name).casefold() for name in plain}) == len(plain):
        return plain
    return [f"{g}-{name}" for g, name in enumerate(plain)]


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_report`."""
    return run_report(work.config, work.run, work.folder, work.progress)
