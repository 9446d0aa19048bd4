"""`raysynth train`: arguments in, adapters out; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

from raysynth.config.options import DryRun, Files
from raysynth.endings import in_words
from raysynth.jobs.commands import Quiet, Verbose, loudness

Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Folder or URI of folders of images.")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[section.key=value ...]",
        help="Of base, finetune, resources, trackers; caption, name, storage_path, seed.",
        show_default=False,
    ),
]
To = Annotated[str, typer.Option("--to", metavar="RUN", help="Default: runs/<the folder's name>.")]


def train(
    folder: Folder,
    settings: Settings = None,
    files: Files = None,
    to: To = "",
    dry_run: DryRun = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """A LoRA adapter for each folder of images, all on one base; no classifier.

    The same command goes on where it was; adapters of unchanged folders are kept.
    """
    from raysynth.adapter_runs.settings import read_train

    with in_words():
        config = read_train(folder, settings or [], files or [], to)
        if dry_run:
            from raysynth.adapter_runs.planned import rehearsed

            for line in rehearsed(config):
                print(line)
            return
    from raysynth.adapter_runs.run import run_train

    with in_words(config.root):
        print(run_train(config, loudness=loudness(verbose=verbose, quiet=quiet)).said)
