"""The report stage: index.html, results.json, contact sheets and plots as PNG."""

from __future__ import annotations

import json
from typing import Any

import fsspec

from raysynth.config import Config
from raysynth.progress import Progress
from raysynth.report.content import read_content
from raysynth.report.page import render
from raysynth.report.plots import methods_plot, search_plot, utilisation_plot
from raysynth.report.results import results
from raysynth.report.sheets import contact_sheets, png, poster
from raysynth.runs import Run


def run_report(config: Config, run: Run, work: str, progress: Progress) -> dict[str, Any]:
    """Write the report of a run whose other stages are finished.

    Writes to `work` index.html (self-contained: no network, no script), results.json,
    sheets/<label>-<attribute>-<cluster>.png and plots/<name>.png.

    Returns
    -------
    Facts: rows (group-clusters shown).
    """
    progress.update("reading the stages")
    content = read_content(config, run)
    progress.update("contact sheets")
    sheets = contact_sheets(content, run)
    progress.update("plots")
    plots = [plot(content) for plot in (methods_plot, search_plot, utilisation_plot)]
    drawn = {plot.name: plot for plot in plots if plot is not None}
    progress.update("page")
    files = {"results.json": json.dumps(results(content), indent=1, allow_nan=False).encode()}
    files |= {f"plots/{name}.png": plot.png for name, plot in drawn.items()}
    for sheet in sheets:
        title = content.groups.name(sheet.group)
        name = f"{title.replace('/', '-').replace(' ', '_')}-{sheet.cluster}"
        files[f"sheets/{name}.png"] = png(poster(f"{title}, cluster {sheet.cluster}", sheet))
    files["index.html"] = render(content, sheets, drawn).encode()
    for name, data in files.items():
        _write(f"{work}/{name}", data)
    return {"rows": len(sheets)}


def _write(path: str, data: bytes) -> None:
    filesystem, name = fsspec.core.url_to_fs(path)
    filesystem.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
    filesystem.pipe_file(name, data)
