"""The commands that look at finished runs: arguments in, words out; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

from raysynth.config.storage import require_filesystem
from raysynth.endings import in_words


def runs(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Folder or URI.")] = "runs",
) -> None:
    """The runs below a folder: state, data, what they ship and how good it is."""
    require_filesystem(folder, "FOLDER")
    from raysynth.compare.show import show_runs

    with in_words():
        show_runs(folder)


def compare(
    run: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Folders or URIs.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FILE.html", help="Write a page with pictures too.")
    ] = "",
) -> None:
    """Runs side by side: accuracies, groups, fidelity, cost, settings that differ."""
    from raysynth.compare.show import show_beside
    from raysynth.jobs.folder import root_of

    with in_words():
        show_beside([root_of([each]) for each in run], to)


def open_page(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder or URI.")],
) -> None:
    """Open a run's report in the browser; prints where it is."""
    from raysynth.compare.show import open_report
    from raysynth.jobs.folder import root_of

    with in_words():
        print(open_report(root_of([run])))
