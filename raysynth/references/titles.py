"""What sentences and tables call a run's methods."""

from __future__ import annotations

from raysynth.references.control import CONTROLS, Control
from raysynth.references.reference import REFERENCES


def control_of(name: str) -> Control | None:
    """A control by its name; None: of a package that is not installed here."""
    if name not in CONTROLS:
        return None
    return CONTROLS[name]


def title_of(name: str) -> str:
    """What a method is called."""
    for parts in (REFERENCES, CONTROLS):
        if name in parts:
            return parts[name].title
    return name.replace("_", " ")
