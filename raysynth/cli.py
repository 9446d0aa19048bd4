"""The commands: arguments in, a table out; no logic."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from raysynth.adapter_runs.commands import train
from raysynth.cluster.stopping import in_time
from raysynth.compare.commands import compare, open_page, runs
from raysynth.config.completion import keys_beginning
from raysynth.config.config import Config
from raysynth.config.files import load_config, split_arguments
from raysynth.config.storage import require_filesystem
from raysynth.dashboards.commands import dashboards
from raysynth.endings import EXIT_CODES, in_words
from raysynth.errors import ConfigError, RaysynthError
from raysynth.inspection.commands import audit, init
from raysynth.jobs.commands import (
    Address,
    Id,
    Installed,
    Quiet,
    Until,
    Verbose,
    Wait,
    logs,
    loudness,
    status,
    stop,
    submit,
)
from raysynth.json_lines import to_stderr
from raysynth.pretrain import pretrain
from raysynth.prompt_runs.commands import generate
from raysynth.publish.commands import export, push

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG.yaml ...] [section.key=value ...]",
        help="YAML files of settings, later ones over earlier, then single settings; without any, "
        "the embedded default.",
        show_default=False,
        autocompletion=keys_beginning,
    ),
]
app = typer.Typer(
    help="Fair classifiers from biased photographs.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Fair classifiers from biased photographs."""
    if show_version:
        from importlib.metadata import version  # email and zipfile with it

        typer.echo(f"raysynth {version('raysynth')}")
        raise typer.Exit


@app.command()
def run(
    arguments: Arguments = None,
    until: Until = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, say what each stage would do, and end."),
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run every stage; finished ones are skipped, an interrupted one goes on where it was."""
    if not dry_run:
        return run_until(until, arguments or [], loudness(verbose=verbose, quiet=quiet))
    config = load_config(*split_arguments(arguments or []))
    from raysynth.rehearsal import in_lines, rehearse

    with in_words():
        print("\n".join(in_lines(rehearse(config, until))))


for each in (train, generate, pretrain, init, audit, submit, status, logs, stop, export, push):
    app.command()(each)
for looks in (runs, compare, open_page, dashboards):
    app.command(looks.__name__.removesuffix("_page"))(looks)


@app.command()
def resume(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder or URI.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[section.key=value ...]", help="Other settings.", show_default=False
        ),
    ] = None,
    until: Until = None,
    as_job: Annotated[bool, typer.Option("--submit", help="As a Ray job, see `submit`.")] = False,
    address: Address = None,
    name: Id = None,
    wait: Wait = True,
    installed: Installed = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run by the configuration that its folder keeps, up to the stage asked before."""
    from raysynth.again import resumed
    from raysynth.jobs.folder import configuration_of, root_of, until_of

    with in_words():
        root = root_of([folder])
        loud = loudness(verbose=verbose, quiet=quiet)
        if resumed(root, overrides or [], loud, plainly=not (as_job or until)):
            return None
        config = configuration_of(root, overrides or [])
        until = until or until_of(root)
    if not as_job:
        if address or name:
            raise ConfigError("--address, --id: of a job. Fix: --submit beside them, or neither")
        return _run(config, until, loud)
    from raysynth.jobs.submit import order_again, submitted

    order = order_again(config, until)
    sys.exit(submitted(order, address, name, wait=wait, installed=installed))


@app.command()
def plan(
    arguments: Arguments = None,
    tflops: Annotated[
        float, typer.Option("--tflops", help="Assumed sustained rate of one GPU, TFLOP/s.", min=0.1)
    ] = 60.0,
) -> None:
    """Groups, adapters, images, GPU memory, GPU-hours and storage of a run; starts nothing."""
    config = load_config(*split_arguments(arguments or []))
    from rich.console import Console

    from raysynth.planning.plan import plan_run
    from raysynth.planning.planned import print_plan

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    print_plan(plan_run(config, tflops), console)


@app.command()
def doctor(arguments: Arguments = None) -> None:
    """Check all that a run needs, here or on every node of its cluster; one line and fix each."""
    config = load_config(*split_arguments(arguments or []))
    from raysynth.doctor.examine import examine, exit_code, line

    found = []
    for name, finding in examine(config):
        print(line(name, finding), flush=True)
        found.append(finding)
    if code := exit_code(found):
        sys.exit(code)


@app.command()
def benchmark(
    arguments: Arguments = None,
    finished_only: Annotated[
        bool,
        typer.Option("--finished", help="Run nothing: the table of what is finished or recorded."),
    ] = False,
    documents: Annotated[
        str,
        typer.Option(
            "--publish",
            metavar="FOLDER",
            help="Write the tables as a page of this local folder too, with the plot.",
        ),
    ] = "",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Rows x severities x seeds of a configuration's `benchmark` section; writes table and plot."""
    files, overrides = split_arguments(arguments or [])
    config = load_config(files, overrides)
    require_filesystem(config.storage_path)
    from raysynth.benchmark.driver import run_benchmark
    from raysynth.benchmark.publish import publish
    from raysynth.progress import Progress

    display = Progress(loudness=loudness(verbose=verbose, quiet=quiet))
    with in_words(config.root):
        finished = run_benchmark(config, display, finished_only=finished_only)
        command = shlex.join(("raysynth", *sys.argv[1:]))
        print(publish(finished, command, documents, files[-1] if files else ""))
    if finished.failed:
        sys.exit(finished.exit_code)


@app.command()
def verify(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN | [CONFIG.yaml] [section.key=value ...]",
            help="A run's folder or URI, or the configuration that it was run with.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        list[str] | None,
        typer.Option(
            "--redo",
            metavar="STAGE",
            help="Forget this stage and what was made of it: the next run makes them again.",
        ),
    ] = None,
) -> None:
    """Check every file of a run's finished stages: sizes, SHA-256, rows, weights."""
    from raysynth.config.storage import resolve_storage
    from raysynth.progress import Progress

    files, settings = split_arguments(arguments or [])
    if not files or files[0].endswith((".yaml", ".yml")):
        config = load_config(files, settings)
        root = config.root
    elif settings:
        raise ConfigError(f"a RUN takes no settings, got {settings[0]!r}. Fix: leave them out")
    else:
        root = resolve_storage(files[0]).rstrip("/")
    require_filesystem(root, "RUN")
    from raysynth.verify import redo
    from raysynth.verify import verify as check

    with in_words(), Progress() as display:
        (redo(root, again, display) if again else check(root, display, print))


@app.command("config")
def show_config(
    arguments: Arguments = None,
    help_keys: Annotated[
        bool,
        typer.Option(
            "--help-keys",
            help="Every key, or those of the sections named: default, meaning, values. "
            "In a file or a pipe: all as Markdown.",
        ),
    ] = False,
) -> None:
    """Print the resolved configuration as YAML, or what every key means."""
    if help_keys:
        return _show_keys(arguments or [])
    config = load_config(*split_arguments(arguments or []))
    values = json.loads(config.model_dump_json())
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


def _show_keys(sections: Sequence[str]) -> None:
    from raysynth.config.documentation import markdown, show

    if not sections and not sys.stdout.isatty():
        return typer.echo(markdown(), nl=False)
    from rich.console import Console

    show(Console(highlight=False), sections)


@app.command()
def parts(
    kind: Annotated[
        str | None, typer.Argument(help="One kind, such as references; default: all.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Bring a document's tables of parts in step.")
    ] = None,
) -> None:
    """Generators, references, scorers, ...: all that a configuration can name, with its source."""
    from raysynth.parts import KINDS, kind_of, table, written

    if write is not None:
        write.write_text(written(write.read_text()))
        return
    for name in [kind] if kind else KINDS:
        one = kind_of(name)
        typer.echo(f"## {name} (`{one.key}`)\n\n{table(one)}")


def run_until(stage: str | None, arguments: Sequence[str], loudness: int = 0) -> None:
    """Run the pipeline up to a stage (None: all of it), then say what came out and where."""
    _run(load_config(*split_arguments(arguments)), stage, loudness)


def _run(config: Config, stage: str | None, loudness: int) -> None:
    require_filesystem(config.storage_path)
    # torch and ray load here, so that a wrong configuration is refused at once.
    from raysynth.pipeline import run_pipeline
    from raysynth.progress import Progress
    from raysynth.report.summary import print_summary

    with in_words(config.root):
        finished = run_pipeline(config, until=stage, progress=Progress(loudness=loudness))
        folder = finished.folder(stage or "report")
        if stage in (None, "report"):
            print_summary(folder)
        else:
            print(folder)


def job(until: str | None = None) -> None:
    """Entry point of the scripts in jobs/: `raysynth run` that ends after a stage."""
    if any(argument in ("-h", "--help") for argument in sys.argv[1:]):
        print(f"usage: {sys.argv[0]} [CONFIG.yaml] [section.key=value ...]")
        return
    _refusing(lambda: run_until(until, sys.argv[1:]))


def main() -> None:
    """Entry point of the `raysynth` command."""
    _refusing(app)


def _refusing(call: Callable[[], object]) -> None:
    """What does not go well goes to standard error without a traceback, with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a name ends no run
            stream.reconfigure(errors="backslashreplace")
    with in_time() as leave:
        try:
            with in_words():
                call()
        except RaysynthError as error:
            to_stderr(str(error), "error", exit_code=error.exit_code)
            leave(error.exit_code)
        except KeyboardInterrupt:
            leave(130)
        except SystemExit as stopped:
            leave(stopped.code)
