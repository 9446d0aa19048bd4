"""What sentences and tables call a run's methods."""

from __future__ import annotations

from raysynth.references.control import CONTROLS
from raysynth.references.reference import REFERENCES


def title_of(name: str) -> str:
    """What a method is called."""
    for parts in (REFERENCES, CONTROLS):
        if name in parts:
            return parts[name].title
    return name.replace("_", " ")
