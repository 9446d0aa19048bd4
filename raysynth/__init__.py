"""raysynth: fair classifiers from biased photographs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysynth.config.config import Config as Config
    from raysynth.errors import ConfigError as ConfigError
    from raysynth.errors import DataError as DataError
    from raysynth.errors import ModelError as ModelError
    from raysynth.errors import RaysynthError as RaysynthError
    from raysynth.errors import StageError as StageError
    from raysynth.errors import StorageError as StorageError
    from raysynth.inspection.inspect import audit_data as audit_data
    from raysynth.python.adapters import generate as generate
    from raysynth.python.adapters import train as train
    from raysynth.python.calls import configure as configure
    from raysynth.python.calls import first_config as first_config
    from raysynth.python.calls import load as load
    from raysynth.python.calls import plan as plan
    from raysynth.python.calls import rehearse as rehearse
    from raysynth.python.calls import run as run
    from raysynth.python.calls import stages_of as stages_of
    from raysynth.python.folder import RunFolder as RunFolder

_CALLS = "raysynth.python.calls"
_OFFERED = {
    **dict.fromkeys(("configure", "first_config", "load", "plan", "rehearse", "run"), _CALLS),
    "stages_of": _CALLS,
    **dict.fromkeys(("train", "generate"), "raysynth.python.adapters"),
    "audit_data": "raysynth.inspection.inspect",
    "RunFolder": "raysynth.python.folder",
    "Config": "raysynth.config.config",
    **dict.fromkeys(
        ("RaysynthError", "ConfigError", "DataError", "ModelError", "StageError", "StorageError"),
        "raysynth.errors",
    ),
}
"""Name -> module; imported when it is asked for, so that `import raysynth` takes no time."""
__all__ = [*_OFFERED]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})
