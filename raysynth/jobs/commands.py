"""The commands around a run: arguments in, text and an exit code out; no logic."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from raysynth.endings import in_words
from raysynth.errors import ConfigError

Run = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="A run's folder or URI; or its CONFIG.yaml and [section.key=value ...].",
        show_default=False,
    ),
]
RunOrId = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN_OR_ID",
        help="A run's folder, URI or configuration; or a job's submission id.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's job server; default: RAY_API_SERVER_ADDRESS, or this machine's head.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Follow the log and end with the job's exit code.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="STAGE", help="The last stage to run.")
]
Id = Annotated[
    str | None,
    typer.Option("--id", metavar="NAME", help="Submission id; default: the run's name and time."),
]
Installed = Annotated[
    bool,
    typer.Option(
        "--installed", help="The cluster's image has raysynth: send the configuration alone."
    ),
]


Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say all that goes to the run's log.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say warnings, errors and the result alone.")
]


def loudness(*, verbose: bool, quiet: bool) -> int:
    """How much is said while something runs: `progress.QUIET`, `USUAL` or `VERBOSE`."""
    if verbose and quiet:
        raise ConfigError("-v, -q: they exclude each other. Fix: one of them")
    return verbose - quiet


def status(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Again and again, until the run has ended.")
    ] = False,
) -> None:
    """How far a run is, read from its folder or URI: stage, rate, time left, driver, last error."""
    from raysynth.jobs import look
    from raysynth.jobs.folder import root_of

    with in_words():
        (look.watch if watch else look.look)(root_of(run), as_json=as_json)


def logs(
    run: RunOrId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run has ended, or Ctrl-C.")
    ] = False,
    address: Address = None,
) -> None:
    """The log of a run from its folder, or that of a job from its cluster."""
    from raysynth.jobs.folder import names_run, root_of
    from raysynth.jobs.logs import follow_log, log_of, no_log

    def show(text: str) -> None:
        print(text, end="", flush=True)

    with in_words():
        if not names_run(run[0]):
            from raysynth.jobs.client import Jobs

            jobs = Jobs(address)
            if follow:
                jobs.follow(run[0], show)
            else:
                show(jobs.log(run[0]))
            return
        root = root_of(run)
        if follow:
            return follow_log(root, show)
        if (text := log_of(root)) is None:
            raise no_log(root)
        show(text)


def stop(run: RunOrId, address: Address = None) -> None:
    """Stop a run or a job as Ctrl-C would, and wait for its end; `resume` goes on with it."""
    from raysynth.jobs.client import Jobs
    from raysynth.jobs.folder import names_run, root_of
    from raysynth.jobs.stop import stop_job, stop_run

    with in_words():
        if names_run(run[0]):
            print(stop_run(root_of(run), lambda: Jobs(address)))
        else:
            print(stop_job(Jobs(address), run[0]))


def submit(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.yaml] [section.key=value ...]",
            help="As for `raysynth run`; storage_path must be seen by every node.",
            show_default=False,
        ),
    ] = None,
    address: Address = None,
    name: Id = None,
    wait: Wait = True,
    until: Until = None,
    installed: Installed = False,
) -> None:
    """Run on a Ray cluster, as a job: follows its log and ends with its exit code."""
    from raysynth.jobs.submit import order_of, submitted

    with in_words():
        order = order_of(arguments or [], until)
        code = submitted(order, address, name, wait=wait, installed=installed)
    sys.exit(code)
