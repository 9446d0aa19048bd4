"""The report stage: index.html, results.json, contact sheets and plots as PNG."""

from __future__ import annotations

import json
from typing import Any

from raysynth.config import Config
from raysynth.progress import Progress
from raysynth.report.content import read_content
from raysynth.report.copies import pair_sheets
from raysynth.report.page import render
from raysynth.report.plots import methods_plot, search_plot, utilisation_plot
from raysynth.report.results import results
from raysynth.report.sheets import captioned, contact_sheets, png, poster
from raysynth.runs import Run
from raysynth.storage import write_atomic


def run_report(config: Config, run: Run, work: str, progress: Progress) -> dict[str, Any]:
    """Write the report of a run whose other stages are finished.

    Writes to `work` index.html (self-contained: no network, no script), results.json,
    sheets/<label>-<attribute>-<cluster>.png, copies/<label>-<attribute>.png and plots/<name>.png.

    Returns
    -------
    Facts: rows (group-clusters shown).
    """
    progress.update("reading the stages")
    content = read_content(config, run)
    progress.update("contact sheets")
    sheets, pairs = contact_sheets(content, run), pair_sheets(content, run)
    progress.update("plots")
    plots = [plot(content) for plot in (methods_plot, search_plot, utilisation_plot)]
    drawn = {plot.name: plot for plot in plots if plot is not None}
    progress.update("page")
    files = {"results.json": json.dumps(results(content), indent=1, allow_nan=False).encode()}
    files |= {f"plots/{name}.png": plot.png for name, plot in drawn.items()}
    for sheet in sheets:
        title = content.groups.name(sheet.group)
        name = f"{_file_name(title)}-{sheet.cluster}"
        files[f"sheets/{name}.png"] = png(poster(f"{title}, cluster {sheet.cluster}", sheet))
    for pair in pairs:
        title = content.groups.name(pair.group)
        picture = captioned(f"{title}: generated above, nearest training images below", pair.strips)
        files[f"copies/{_file_name(title)}.png"] = png(picture)
    files["index.html"] = render(content, sheets, pairs, drawn).encode()
    for name, data in files.items():
        write_atomic(f"{work}/{name}", data)
    return {"rows": len(sheets)}


def _file_name(group: str) -> str:
    return group.replace("/", "-").replace(" ", "_")
