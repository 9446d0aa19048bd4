"""The functions that `import raysynth` offers: a configuration in, a plan or a run's folder out.

What a command refuses with exit code 2 or 3 is raised here as it is (`raysynth.errors`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.config.config import Config
from raysynth.config.files import config_of, merge, read_values
from raysynth.config.storage import require_filesystem
from raysynth.endings import in_words
from raysynth.python.folder import RunFolder

if TYPE_CHECKING:
    from raysynth.planning.planned import Plan
    from raysynth.rehearsal import Rehearsal

Source = Config | Mapping[str, Any] | str | os.PathLike[str] | Sequence[Any] | None
"""A configuration, a mapping of its sections, one YAML file or several; None: the default."""


def configure(source: Source = None, *settings: str, **sections: Any) -> Config:
    """The configuration of a run: as the command reads it, from a file, a mapping or another one.

    Parameters
    ----------
    settings : single ones as on the command line, such as `dataset.severity=0.95`.
    sections : keys of the configuration; a mapping is laid over the section it names.

    Raises
    ------
    ConfigError
        With one line per problem: the key, what was found, what is expected.
    """
    values: dict[str, Any]
    where, origins = "", None
    if isinstance(source, Config):
        values = source.model_dump(mode="json")
    elif isinstance(source, Mapping):
        values = {}
        merge(values, source)
    else:
        if source is None or isinstance(source, str | os.PathLike):
            files = [] if source is None else [os.fspath(source)]
        else:
            files = [os.fspath(each) for each in source]
        values, origins = read_values(files)
        where = ", ".join(files)
    merge(values, sections)
    return config_of(values, settings, where, origins)


def plan(source: Source = None, *settings: str, **sections: Any) -> Plan:
    """What a run would do and need (`print` it); starts nothing. Arguments as `configure`.

    Raises
    ------
    ConfigError, DataError, ModelError
        As the run itself would, before its first stage.
    """
    from raysynth.planning.plan import plan_run

    with in_words():
        return plan_run(configure(source, *settings, **sections))


def rehearse(
    source: Source = None, *settings: str, until: str | None = None, **sections: Any
) -> Rehearsal:
    """What a run would do with each stage, and its warnings: `raysynth run --dry-run`."""
    from raysynth.rehearsal import rehearse as rehearsed

    with in_words():
        return rehearsed(configure(source, *settings, **sections), until)


def stages_of(source: Source = None, *settings: str, **sections: Any) -> list[str]:
    """The stages of a run in order, each of which may be `until`."""
    from raysynth.method import nodes_of

    nodes = nodes_of(configure(source, *settings, **sections))
    return list(dict.fromkeys(node.stage.name for node in nodes))


def run(
    source: Source = None,
    *settings: str,
    until: str | None = None,
    quiet: bool = False,
    **sections: Any,
) -> RunFolder:
    """Run every stage up to `until` (None: all); finished ones are skipped. Arguments as
    `configure`.

    Ray is started for the run and stopped behind it, unless this process has one. Ctrl-C (a
    notebook's stop) is a KeyboardInterrupt, and the same call goes on where it was.

    Parameters
    ----------
    quiet : say nothing while it runs; the run's log has it.

    Raises
    ------
    RaysynthError
        What the command would end with: ConfigError, DataError, ModelError, StageError, ...
    """
    config = configure(source, *settings, **sections)
    require_filesystem(config.storage_path)
    from rich.console import Console

    from raysynth.pipeline import run_pipeline
    from raysynth.progress import Progress

    progress = Progress(Console(quiet=True)) if quiet else None
    with in_words(config.root):
        run_pipeline(config, until=until, progress=progress)
    return RunFolder(config.root)


def load(root: str | os.PathLike[str]) -> RunFolder:
    """A run by its folder or URI (`storage_path/name`), finished or not.

    Raises
    ------
    ConfigError
        There is no run.
    """
    found = RunFolder(os.fspath(root))
    _ = found.config
    return found


def first_config(folder: str | os.PathLike[str], *, gpu: bool | None = None) -> dict[str, Any]:
    """The settings that `raysynth init` would write for a folder of images, for `run` and others.

    Raises
    ------
    DataError
        The folder is no data set that can be read, or one that a run would refuse.
    """
    from raysynth.planning.proposal import propose

    with in_words():
        return propose(os.fspath(folder), gpu=gpu).settings
