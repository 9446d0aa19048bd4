"""What a tracker is told of a run, and what one kind of tracker is.

A file of `kinds` each; another package adds one by an entry point of the group
`raysynth.trackers.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from raysynth.knobs import Section
from raysynth.registry import Registry


class Tracker(Protocol):
    """One run as a tracker sees it; whatever it raises, the run goes on without it."""

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a stage that is at work, at a step of its own."""

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """What a finished stage says of itself, JSON-able, as in the manifest."""

    def close(self) -> None:
        """The run has ended, well or not."""


@dataclass(frozen=True)
class Kind:
    """One name in `trackers`.

    Parameters
    ----------
    title, source : what it is called, and where it comes from.
    open : (folder, name, config, knobs) -> the tracker of a run. `folder`: local, the tracker's
        own, made when something is written; `name`: the run's; `config`: its configuration,
        JSON-able; `knobs`: a `Knobs`.
    Knobs : its own knobs.
    """

    title: str
    source: str
    open: Callable[[str, str, Mapping[str, Any], Any], Tracker]
    Knobs: type[Section] = Section


TRACKERS: Registry[Kind] = Registry("raysynth.trackers.kinds", "tracker")
