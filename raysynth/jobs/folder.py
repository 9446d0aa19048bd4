"""Which run a command means: a folder or URI, or the configuration that it is started with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from raysynth.config.config import Config
from raysynth.config.files import load_config, read_config, split_arguments
from raysynth.config.storage import require_filesystem
from raysynth.errors import ConfigError
from raysynth.jobs.status import read_status
from raysynth.stages.run import CONFIG
from raysynth.storage.files import exists
from raysynth.terminal import clipped, masked, shown


def names_run(text: str) -> bool:
    """Whether an argument names a run and no job: a folder, a URI, a file, or a setting."""
    return "=" in text or "://" in text or os.sep in text or os.path.exists(text)


def root_of(arguments: Sequence[str]) -> str:
    """Folder or URI of the run that `RUN` or `[CONFIG.yaml] [section.key=value ...]` names.

    Raises
    ------
    ConfigError
        It is no folder and no configuration.
    """
    first = arguments[0] if arguments else ""
    if _is_folder(first):
        if len(arguments) > 1:
            raise ConfigError(
                f"{_told(arguments[1])}: the run's folder is named already. Fix: leave it out"
            )
        require_filesystem(first, "RUN")
        return first.rstrip("/") if "://" in first else os.path.abspath(first)
    if first and "=" not in first and not os.path.exists(first):
        raise ConfigError(
            f"{_told(first)}: no such folder or file; expected a run's folder or URI "
            "(storage_path/name), or a configuration. Fix: check the path"
        )
    config = load_config(*split_arguments(arguments))
    require_filesystem(config.storage_path)
    return config.root


def configuration_of(root: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run's folder keeps, for going on with the run there.

    Raises
    ------
    ConfigError
        There is none, or it cannot be read; an override would make another run of it.
    """
    refuse_places(root, overrides, "run")
    if not exists(f"{root}/{CONFIG}"):
        raise ConfigError(
            f"{_told(root)}: no run, for there is no {CONFIG}. Fix: name a run's folder "
            "(storage_path/name)"
        )
    config = read_config(f"{root}/{CONFIG}", overrides)
    path, _, name = root.rpartition("/")
    return config.model_copy(update={"storage_path": path, "name": name})  # it may have been moved


def refuse_places(root: str, overrides: Sequence[str], command: str) -> None:
    """Refuse overrides that would make another run of one; ConfigError."""
    for override in overrides:
        if (key := override.partition("=")[0]) in ("name", "storage_path"):
            there = f" {_told(f'{root}/{CONFIG}')} {_told(override)}" if command == "run" else ""
            raise ConfigError(
                f"{key}: another {key} is another run. Fix: leave it out, or start that run: "
                f"raysynth {command}{there}"
            )


def config_of(arguments: Sequence[str]) -> Config:
    """The configuration that `RUN`, or `[CONFIG.yaml] [section.key=value ...]`, stands for.

    Raises ConfigError as `root_of`, `configuration_of` and `load_config`.
    """
    if arguments and _is_folder(arguments[0]):
        return configuration_of(root_of(arguments))
    config = load_config(*split_arguments(arguments))
    require_filesystem(config.storage_path)
    return config


def until_of(root: str) -> str | None:
    """The last stage that a run was asked for when it was last started; None: all."""
    until = read_status(root).record.get("until")
    return until if isinstance(until, str) else None


def _is_folder(text: str) -> bool:
    return "://" in text.partition("=")[0] or os.path.isdir(text)


def _told(text: str) -> str:
    return clipped(shown(masked(text)))
