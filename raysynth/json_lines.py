"""Lines for machines: with RAYSYNTH_LOG=json a run tells what it does as JSON, an object a line.

An environment variable and no knob: it belongs to whoever reads the terminal, not to the run.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from raysynth.errors import ConfigError
from raysynth.terminal import masked, shown

FORMAT = "RAYSYNTH_LOG"
FORMATS = ("text", "json")
CONTEXT: dict[str, Any] = {}
"""What every line says: the run and its attempt, once they are known."""


def as_json() -> bool:
    """Whether lines are JSON; raises ConfigError for a format that there is not."""
    asked = os.environ.get(FORMAT) or FORMATS[0]
    if asked not in FORMATS:
        raise ConfigError(
            f"{FORMAT}: got {asked!r}, expected {' or '.join(FORMATS)}. Fix: unset it, or take one"
        )
    return asked == "json"


def now() -> str:
    """The time of a line: UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(message: str, level: str, **numbers: Any) -> str:
    """One object: time, run, attempt, level, message, and what else is known (stage, adapter)."""
    told = {"time": now(), **CONTEXT, "level": level, "message": masked(message.strip())}
    return json.dumps({**told, **numbers}, default=str)


def to_stderr(message: str, level: str = "info", **numbers: Any) -> None:
    """A line on standard error, in the format that is asked for."""
    wanted = os.environ.get(FORMAT) == "json"
    plain = shown(masked(f"raysynth: {message}"), lines=True)
    print(json_line(message, level, **numbers) if wanted else plain, file=sys.stderr, flush=True)
