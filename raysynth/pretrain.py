"""The command that makes a base of one's own: arguments in, words out; no logic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raysynth.config.completion import keys_beginning
from raysynth.config.files import load_config, split_arguments
from raysynth.config.storage import check_apart, require_filesystem
from raysynth.endings import in_words
from raysynth.jobs.commands import Quiet, Verbose, loudness

if TYPE_CHECKING:
    from raysynth.base_run import PretrainConfig


def pretrain(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG.yaml [section.key=value ...]",
            help="As for `run`; section `pretraining` says what is made of the images.",
            show_default=False,
            autocompletion=keys_beginning,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say minutes and memory, and end.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Make a base model of one's own from the images; an interrupted one goes on where it was."""
    given = load_config(*split_arguments(arguments or []))
    require_filesystem(given.storage_path)
    from raysynth.base_run import PretrainConfig, run_pretrain

    config = PretrainConfig(**dict(given))
    check_apart(config)  # its folder is another one than a run's of the name
    with in_words(config.root):
        if dry_run:
            return _rehearse(config)
        print(run_pretrain(config, loudness=loudness(verbose=verbose, quiet=quiet)).said)


def _rehearse(config: PretrainConfig) -> None:
    """Refuse what a run would refuse, else print what it would take."""
    from raysynth.models.architecture import quiet_libraries

    with quiet_libraries():
        from raysynth.pretraining.driver import check_machine
        from raysynth.pretraining.estimate import estimate

        order = config.order
        check_machine(order)
        for line in estimate(order):
            print(line, flush=True)
