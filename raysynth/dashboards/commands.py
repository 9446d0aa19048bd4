"""The command that opens a run's boards: arguments in, addresses out; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

from raysynth.endings import in_words


def dashboards(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder or URI.")],
    port: Annotated[
        int, typer.Option("--port", help="Of the first board.", min=1024, max=65000)
    ] = 6006,
) -> None:
    """TensorBoard and other boards of a run, at work or finished, until Ctrl-C."""
    from raysynth.dashboards.serve import serve
    from raysynth.jobs.folder import root_of

    with in_words():
        serve(root_of([run]), port, lambda line: print(line, flush=True))
