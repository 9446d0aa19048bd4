"""`raysynth generate`: arguments in, images out; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

from raysynth.config.command import split_words
from raysynth.config.options import DryRun, Files
from raysynth.endings import in_words
from raysynth.jobs.commands import Quiet, Verbose, loudness

Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="Parquet or CSV: column prompt, perhaps negative, adapter, seed, count.",
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ADAPTER ...] [section.key=value ...]",
        help="LoRA files, folders of one or of many, runs; settings of base, synthesis, resources, "
        "trackers; count, name, storage_path, seed.",
        show_default=False,
    ),
]
To = Annotated[str, typer.Option("--to", metavar="RUN", help="Default: runs/<the file's name>.")]
Export = Annotated[
    str, typer.Option("--export", metavar="FORM", help="Also as imagefolder or webdataset.")
]


def generate(
    prompts: Prompts,
    words: Words = None,
    files: Files = None,
    to: To = "",
    export: Export = "none",
    dry_run: DryRun = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Images of prompts by any set of LoRA adapters, mixed in a batch, into Parquet with scores.

    Without an adapter the base draws by itself. The same command goes on where it was.
    """
    from raysynth.prompt_runs.settings import read_generate

    with in_words():
        adapters, settings = split_words(words or [])
        config = read_generate(prompts, adapters, settings, files or [], to, export)
        if dry_run:
            from raysynth.prompt_runs.planned import rehearsed

            for line in rehearsed(config):
                print(line)
            return
    from raysynth.prompt_runs.run import run_generate

    with in_words(config.root):
        print(run_generate(config, loudness=loudness(verbose=verbose, quiet=quiet)).said)
