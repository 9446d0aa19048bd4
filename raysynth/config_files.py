"""From a YAML file and the command line's overrides to a configuration, and its errors in words."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from raysynth.config import Config
from raysynth.errors import ConfigError


def load_config(path: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a run: defaults, then the YAML file, then `section.key=value` overrides.

    Raises
    ------
    ConfigError
        With one line per problem: the key, what was found, what is expected.
    """
    values = _read_yaml(path) if path else {}
    for override in overrides:
        _apply_override(values, override)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, path)) from None
    return config.model_copy(update={"storage_path": resolve_storage(config.storage_path)})


def resolve_storage(storage_path: str) -> str:
    """An absolute folder or a URI; a relative path is refused inside a Ray job.

    A job's working directory is an unpacked copy that is deleted with the job, so what is written
    to a relative path there would be lost (Ray docs, runtime environments).
    """
    if "://" in storage_path:
        return storage_path
    if not os.path.isabs(storage_path) and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"storage_path: got the relative path {storage_path!r} inside a Ray job, whose working "
            "directory is a temporary copy; expected an absolute path on storage that every node "
            "sees, or a URI. Fix: storage_path=s3://bucket/runs or storage_path=/mnt/shared/runs"
        )
    return str(Path(storage_path).expanduser().absolute())


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file. Fix: check the path") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a YAML file. Fix: name a file "
            "that this user may read, such as a run's config.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of sections expected, got {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: expected section.key=value, e.g. dataset.severity=0.95")
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not valid YAML: {error}") from None


def explain(error: ValidationError, path: str | None) -> str:
    """One line per problem: the key, what was found, what is expected; `path`: where from."""
    lines = [f"The configuration{f' {path}' if path else ''} has {error.error_count()} problem(s):"]
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            *parent, last = [str(part) for part in item["loc"]]
            lines.append(f"  {key}: unknown key. {_nearest(parent, last)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
            lines.append(f"  {key}: {message}{got}" if key else f"  {message}")
    lines.append("Fix: `raysynth config --help-keys` lists every key with its meaning and unit.")
    return "\n".join(lines)


def _nearest(parent: list[str], key: str) -> str:
    model: Any = Config
    for part in parent:
        if hasattr(model, "model_fields"):
            model = model.model_fields[part].annotation
        else:
            model = get_args(model)[1]  # a mapping's values, such as finetune.overrides'
    known = sorted(model.model_fields)
    match = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean `{match[0]}`?" if match else f"Known keys: {', '.join(known)}"
