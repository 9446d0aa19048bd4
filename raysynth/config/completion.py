"""Keys of the configuration for a shell's completion: `dataset.sev` becomes `dataset.severity=`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raysynth.config.config import Config
from raysynth.knobs import Section
from raysynth.registry import Names


def keys_beginning(incomplete: str) -> list[str]:
    """Keys that a text begins, with `=`; behind a `=`, the values that a key can have.

    Bash takes what stands behind a `=` for a word of its own: there keys are completed alone.
    """
    key, equals, begun = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name, _ in _keys(Config) if name.startswith(incomplete)]
    metadata = next((found for name, found in _keys(Config) if name == key), [])
    names = next((each for each in metadata if isinstance(each, Names)), ())
    return [f"{key}={name}" for name in names if name.startswith(begun)]


def _keys(section: type[Section], above: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}", list(field.metadata)
