"""A course: what one command's runs go through, from a configuration to the last stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysynth.stages.graph import Contents, Node, no_contents


@dataclass(frozen=True)
class Course:
    """The stages of a command's runs, and what is looked at before any of them is made."""

    folders: Mapping[str, str]
    """Stage -> its folder below the run's, in order."""
    nodes: Callable[[Any, str | None, Contents], list[Node]]
    """(configuration, last stage or None, contents): the stages, see `graph.graph`."""
    check: Callable[[Any], Sequence[str]]
    """(configuration): refuses what cannot work, before Ray starts; warnings of what can."""
    contents: Contents = no_contents
    """What decides a stage besides its configuration: files outside the run."""
    report: str = ""
    """The stage whose page and results trackers are given; "": none."""
