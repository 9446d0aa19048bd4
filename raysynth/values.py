"""What a single value of the configuration may be, beyond its type."""

from __future__ import annotations

import os
import re
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from raysynth.terminal import clipped, masked

DEVICE = re.compile(r"(?:auto|(?:cpu|cuda|mps|xpu|hpu|mtia|xla)(?::(?:0|[1-9]\d{0,2}))?)")
"""torch's devices that compute; torch itself is not imported for a configuration."""
LARGEST = 2**63 - 1
"""Whole numbers beyond are none that a machine counts with."""


def named(value: str) -> str:
    """A text that names something; ValueError if it is blank or holds control characters."""
    if not value.strip():
        raise ValueError("empty; expected a name. Fix: leave the key out for its default")
    if control := [sign for sign in value if ord(sign) < 32 or ord(sign) == 127]:
        raise ValueError(f"holds the control character {control[0]!r}; expected printable text")
    return value


def place(value: str) -> str:
    """A folder, a URI or a model's name; ValueError if it is none, or names no user's home."""
    if named(value).startswith("~") and os.path.expanduser(value).startswith("~"):
        user = clipped(value.partition("/")[0])
        raise ValueError(f"no home of {user!r} here; expected another folder")
    return value


def torch_device(value: str) -> str:
    """`auto` or a device of torch's; ValueError for another text."""
    if not DEVICE.fullmatch(value):
        raise ValueError("expected auto, or a torch device such as cpu, cuda, cuda:0 or mps")
    return value


def plain(value: Any, annotation: Any) -> Any:
    """A value before its type is looked at; whole numbers as keys are names where keys are texts.

    YAML reads a bare `yes` or `true` as a boolean, which Python counts as 1.

    Raises
    ------
    ValueError
        A boolean where a number belongs, a number no machine counts with, a secret in a URI.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return value  # a section looks at its own
    kinds = _kinds(annotation)
    own = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
    _check(value, bool_is_wrong=not (own or kinds & {bool, Any}))  # a section looks at its own
    if int in kinds and str not in kinds and isinstance(value, str) and _is_too_large(value):
        raise ValueError("expected a number below 2^63")  # pydantic reads digits in quotes
    if isinstance(value, dict) and int not in _key_kinds(annotation):
        return {str(k) if type(k) is int else k: inner for k, inner in value.items()}
    return value


def _is_too_large(text: str) -> bool:
    """Whether a text is a whole number that no machine counts with."""
    digits = text.strip().lstrip("+-").replace("_", "")
    return digits.isdecimal() and (len(digits) > 30 or int(digits) > LARGEST)


def _check(value: Any, *, bool_is_wrong: bool) -> None:
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, bool_is_wrong=bool_is_wrong)
    elif isinstance(value, bool) and bool_is_wrong:
        raise ValueError(
            f"got {str(value).lower()}, which YAML reads from a bare yes, no, on, off, true or "
            "false; expected no boolean. Fix: a number as digits, a text in quotes, such as 'yes'"
        )
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("expected a number below 2^63")
    elif isinstance(value, str) and masked(value) != value:
        raise ValueError(
            "a secret in a URI would be written into config.yaml and the report; expected the URI "
            "without it. Fix: give secrets to the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, "
            "GOOGLE_APPLICATION_CREDENTIALS) or to the filesystem's own configuration"
        )


def _kinds(annotation: Any) -> set[Any]:
    """All plain types that an annotation is made of."""
    if hasattr(annotation, "__metadata__"):
        return _kinds(get_args(annotation)[0])
    inner = get_args(annotation)
    return set().union(*(_kinds(each) for each in inner)) if inner else {annotation}


def _key_kinds(annotation: Any) -> set[Any]:
    """Types of the keys of a mapping that an annotation allows."""
    if get_origin(annotation) is dict:
        return _kinds(get_args(annotation)[0])
    return set().union(*map(_key_kinds, get_args(annotation)))
