"""What of a run's configuration is not the default, and whose the parts are that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raysynth.registry import Chosen, Names, Registry

TOLD = ("name", "storage_path", "seed", "benchmark")
"""Keys that the page has elsewhere, and that are of no single run."""


@dataclass(frozen=True)
class Departure:
    """A setting that is not the default: its key, its value as YAML, and what it means."""

    key: str
    value: str
    meaning: str
    parts: tuple[tuple[str, str], ...]
    """(title, source) of each part that it names and the default does not."""


def departures(section: BaseModel, above: str = "") -> Iterator[Departure]:
    """The settings of a section and of those below it that were given, and not as the default."""
    usual = type(section)()
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), above + name
        if key in TOLD:
            continue
        if isinstance(value, BaseModel) and not isinstance(value, Chosen):
            yield from departures(value, f"{key}.")
        elif name in section.model_fields_set and value != (default := getattr(usual, name)):
            parts = _parts(field, value, default)
            yield Departure(key, _literal(section, name), field.description or "", parts)


def _literal(section: BaseModel, name: str) -> str:
    value = section.model_dump(mode="json", include={name})[name]
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _parts(field: FieldInfo, value: Any, default: Any) -> tuple[tuple[str, str], ...]:
    """Title and source of named parts, without those of the default."""
    new = [name for name in _named(value) if name not in _named(default)]
    found = [(registry, name) for registry in _registries(field) for name in new]
    return tuple((r[name].title, r[name].source) for r, name in found if name in r)


def _named(value: Any) -> list[str]:
    """Names that a value may have of parts."""
    values = value if isinstance(value, tuple | list) else [value]
    return [one.name if isinstance(one, Chosen) else str(one) for one in values]


def _registries(field: FieldInfo) -> list[Registry[Any]]:
    """The registries of whose parts a field names some."""
    inside, found = [*field.metadata, field.annotation], list[Registry[Any]]()
    while inside:
        item = inside.pop()
        if isinstance(item, Names) and item.registry not in found:
            found.append(item.registry)
        inside += [*get_args(item), *getattr(item, "__metadata__", ())]
    return found
