"""From YAML files and the command line's overrides to a configuration, and its errors in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from raysynth.config.config import Config
from raysynth.config.ground import RunConfig
from raysynth.config.parse import DEEPEST, MOST_BYTES, parse_yaml
from raysynth.config.storage import check_apart, resolve_storage
from raysynth.errors import ConfigError
from raysynth.registry import Chosen
from raysynth.terminal import clipped, masked, shown

MOST_PROBLEMS = 20
"""Problems that one message lists."""
LONGEST_REASON = 1000
"""Characters of what the YAML reader says."""
R = TypeVar("R", bound=RunConfig)
Origins = dict[tuple[str, ...], str]
"""Key -> the file that gave its value, where there are several."""


def load_config(
    paths: str | Sequence[str] | None = None,
    overrides: Iterable[str] = (),
    *,
    in_job: bool | None = None,
) -> Config:
    """The configuration of a run: defaults, then YAML files, then `section.key=value` overrides.

    Of several files the later ones win, key by key. `in_job`: whether it is for a Ray job; None:
    whether this process is one's.

    Raises
    ------
    ConfigError
        With one line per problem: the key, what was found, what is expected.
    """
    files = [paths] if isinstance(paths, str) else list(paths or ())
    values, origins = read_values(files)
    return config_of(values, overrides, ", ".join(files), origins, in_job=in_job)


def config_of(
    values: dict[str, Any],
    overrides: Iterable[str] = (),
    where: str = "",
    origins: Mapping[tuple[str, ...], str] | None = None,
    *,
    in_job: bool | None = None,
) -> Config:
    """The configuration that values are, as `load_config`; `where`: they come from, for messages.

    `values` are written over by the overrides.
    """
    for override in overrides:
        apply_override(values, override)
    return validated(Config, values, where, origins, in_job=in_job)


def validated(
    kind: type[R],
    values: Mapping[str, Any],
    where: str = "",
    origins: Mapping[tuple[str, ...], str] | None = None,
    *,
    in_job: bool | None = None,
) -> R:
    """The configuration of a command that values are; as `config_of`, which is that of `run`."""
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, where, origins, kind)) from None
    storage = resolve_storage(config.storage_path, in_job)
    config = config.model_copy(update={"storage_path": storage})
    check_apart(config)
    return config


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`[CONFIG.yaml ...] [section.key=value ...]` as (paths, overrides).

    Paths come first, and hold no `=`.
    """
    given = list(arguments)
    count = next((n for n, each in enumerate(given) if "=" in each), len(given))
    return given[:count], given[count:]


def read_values(paths: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """The settings of YAML files, later ones over earlier; and which file gave which key."""
    values: dict[str, Any] = {}
    origins: Origins = {}
    for path in paths:
        merge(values, _read_yaml(path), origins, path if len(paths) > 1 else "")
    return values, origins


def merge(
    values: dict[str, Any],
    more: Mapping[str, Any],
    origins: Origins | None = None,
    file: str = "",
    above: tuple[str, ...] = (),
) -> None:
    """Lay settings over others: mappings key by key, everything else as a whole."""
    for key, value in more.items():
        place, there = (*above, str(key)), values.get(key)
        if isinstance(value, Mapping) and isinstance(there, dict):
            merge(there, value, origins, file, place)
            continue
        values[key] = _copied(value)
        if origins is not None and file:
            origins[place] = file


def _copied(value: Any) -> Any:
    """A mapping that may be written over."""
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return value


def read_config(path: str, overrides: Iterable[str] = ()) -> Config:
    """The configuration that a run wrote to a path or URI, as it was then resolved.

    `overrides`: `section.key=value`, for going on with the run.

    Raises
    ------
    ConfigError
        Nothing is there, or what this version cannot read: the keys are those of another.
    """
    values = read_written(path)
    if command := values.get("command"):
        raise ConfigError(
            f"{_told(path)}: written by `raysynth {_told(str(command))}`; expected a run of the "
            "whole method. Fix: that command again, or `raysynth resume`, goes on with it"
        )
    for override in overrides:
        apply_override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, path)) from None


def read_written(path: str) -> dict[str, Any]:
    """The settings that a run wrote to a path or URI, of whatever command; raises ConfigError."""
    from raysynth.storage.files import open_storage  # fsspec with it: only where it is read

    storage, name = open_storage(path)
    try:
        return _parsed(storage.cat_file(name), _told(path))
    except FileNotFoundError:
        raise ConfigError(f"{_told(path)}: no such file. Fix: name a run's folder") from None


def _read_yaml(path: str) -> dict[str, Any]:
    where = _told(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such configuration file. Fix: check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{where}: cannot be read ({reason}); expected a YAML file. Fix: name a file "
            "that this user may read, such as a run's config.yaml"
        ) from None
    return _parsed(data, where)


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    """The settings that a file's bytes are; `where`: its name, as messages show it."""
    try:
        values = parse_yaml(data.decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not valid YAML: {_reason(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: a mapping of sections expected, got {type(values).__name__}")
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Write a `section.key=value` over settings; raises ConfigError for what is none."""
    key, equals, text = override.partition("=")
    where = repr(_told(override))
    if not equals or not key:
        first = " (files come before settings)" if override.endswith((".yaml", ".yml")) else ""
        raise ConfigError(f"{where}: expected section.key=value, e.g. dataset.severity=0.95{first}")
    *sections, last = key.split(".")
    if len(sections) > DEEPEST or not _is_text(key):
        raise ConfigError(f"{where}: no key. Fix: section.key=value, e.g. dataset.severity=0.95")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {_told(section)} is a value, not a section")
        values = inner
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: the value is not valid YAML: {_reason(error)}") from None
    if last.isascii() and last.isdecimal() and len(last) < 19:
        values.pop(int(last), None)  # type: ignore[call-overload]  # as a file has whole numbers
    values[last] = value


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold a text: an argument of other bytes cannot be one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _told(text: str) -> str:
    """A text as a message shows it: masked, harmless, not long."""
    return clipped(shown(masked(text)))


def _reason(error: Exception) -> str:
    return clipped(shown(masked(str(error)), lines=True), LONGEST_REASON)


def explain(
    error: ValidationError,
    path: str | None,
    origins: Mapping[tuple[str, ...], str] | None = None,
    kind: type[RunConfig] = Config,
) -> str:
    """One line per problem: the key, what was found, what is expected; `path`: where from.

    `origins`: the file of each key, where there are several; `kind`: what was to be read.
    """
    count, problems = error.error_count(), error.errors(include_url=False, include_context=False)
    lines = [f"The configuration{f' {_told(path)}' if path else ''} has {count} problem(s):"]
    for item in problems[:MOST_PROBLEMS]:
        if item["type"] == "default_factory_not_called":
            continue  # follows from another one of the list
        key = _told(".".join(str(part) for part in item["loc"]))
        file = _origin(item["loc"], origins or {})
        if item["type"] == "extra_forbidden":
            *parent, last = [str(part) for part in item["loc"]]
            lines.append(f"  {key}: unknown key{file}. {_nearest(kind, parent, last)}")
        else:
            message, value = item["msg"].removeprefix("Value error, "), item["input"]
            said = isinstance(value, dict) or "got " in message
            got = "" if said else f", got {_told(repr(value))}"
            if item["type"] == "string_type" and isinstance(value, int | float):
                got += f". Fix: quote it, e.g. '{_told(str(value))}'"
            lines.append(f"  {key}: {message}{got}{file}" if key else f"  {message}")
    if count > MOST_PROBLEMS:
        lines.append(f"  and {count - MOST_PROBLEMS:,} more")
    lines.append("Fix: `raysynth config --help-keys` lists every key with its meaning and unit.")
    return "\n".join(lines)


def _origin(place: Sequence[Any], origins: Mapping[tuple[str, ...], str]) -> str:
    """` (in FILE)` of a problem's key; empty where there is one file, or a setting gave it."""
    key = tuple(str(part) for part in place)
    found = (origins.get(key[:length]) for length in range(len(key), 0, -1))
    file = next(filter(None, found), "")
    return f" (in {_told(file)})" if file else ""


def _nearest(kind: type[RunConfig], parent: list[str], key: str) -> str:
    model: Any = kind
    for part in parent:
        if hasattr(model, "model_fields"):
            model = model.model_fields[part].annotation
        else:  # a list's, or a mapping's values, such as finetune.overrides'
            model = get_args(model)[0 if get_origin(model) is tuple else 1]
        model = get_args(model)[0] if hasattr(model, "__metadata__") else model
    if model is Chosen:
        return f"Fix: the knobs of {'.'.join(parent)} are those of the part that it names"
    known = sorted(model.model_fields)
    match = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean `{match[0]}`?" if match else f"Known keys: {', '.join(known)}"
