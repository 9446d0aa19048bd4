"""The configuration of a command with sections of its own: `--config` files, settings, `--to`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from raysynth.config.files import R, apply_override, merge, read_values, validated
from raysynth.config.storage import require_filesystem
from raysynth.errors import ConfigError
from raysynth.terminal import clipped, masked, shown

Idle = Mapping[str, Mapping[str, str]]
"""Section -> knob that a command has no use for -> why."""


def read_command(
    kind: type[R],
    own: Mapping[str, Any],
    settings: Sequence[str],
    files: Sequence[str],
    to: str,
    defaults: tuple[Mapping[str, Any], Mapping[str, Any]],
    idle: Idle,
) -> R:
    """The configuration of a command: its defaults, its arguments, YAML files, then settings.

    Parameters
    ----------
    own : what the command's arguments say.
    to : the run's folder or URI; "": as `name` and `storage_path` say.
    defaults : those of the command, and those besides with another base than the embedded one.
    idle : what is refused where it is given.

    Raises
    ------
    ConfigError
        With one line per problem; or a knob that the command has no use for.
    """
    given, origins = read_values(list(files))
    for setting in settings:
        apply_override(given, setting)
    _refuse_idle(given, idle)
    values: dict[str, Any] = {}
    embedded = _base_of(given) == "embedded"
    for each in (defaults[0], {} if embedded else defaults[1], own, given, _place(to, given)):
        merge(values, each)
    config = validated(kind, values, ", ".join(files), origins)
    require_filesystem(config.storage_path)
    return config


def whole_path(path: str) -> str:
    """A path from the root on, `~` resolved; a URI as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(arguments, settings) of a command's words: a setting has `=`, and no `/` before it."""
    settings = [word for word in words if _is_setting(word)]
    return [word for word in words if not _is_setting(word)], settings


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and "/" not in key and not os.path.exists(word)


def _base_of(given: Mapping[str, Any]) -> Any:
    base = given.get("base")
    return base.get("name", "embedded") if isinstance(base, Mapping) else "embedded"


def _place(to: str, given: Mapping[str, Any]) -> dict[str, str]:
    """`name` and `storage_path` of the run's folder."""
    if not to:
        return {}
    if twice := [key for key in ("name", "storage_path") if key in given]:
        raise ConfigError(f"--to, {twice[0]}: both say where the run lies. Fix: leave one out")
    whole = whole_path(to.rstrip("/"))
    folder, _, name = whole.rpartition("/")
    if not folder or not name:
        raise ConfigError(
            f"--to: got {clipped(shown(masked(to)))!r}, expected a folder inside of one. Fix: --to "
            "runs/NAME"
        )
    return {"name": name, "storage_path": folder}


def _refuse_idle(given: Mapping[str, Any], idle: Idle) -> None:
    for section, knobs in idle.items():
        inner = given.get(section)
        for knob, why in knobs.items():
            if isinstance(inner, Mapping) and knob in inner:
                raise ConfigError(f"{section}.{knob}: without use here: {why}. Fix: leave it out")
