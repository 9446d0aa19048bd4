"""What a tracker is told of a run, and what one kind of tracker is.

A file of `kinds` each; another package adds one by an entry point of the group
`raysynth.trackers.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.knobs import Section
from raysynth.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WGA, AGA, LOSS = "WGA", "AGA", "loss"
"""What numbers are called wherever they come from, so that trackers draw them together."""


class Tracker(Protocol):
    """One run as a tracker sees it; whatever it raises, the run goes on without it.

    `of` is a stage at work, or a part of one behind a slash: an adapter (`finetune/3-0`), a trial
    (`search/trial-03`), a training (`references/erm, seed 0`), a method on test (`test/erm`).
    """

    def metrics(self, of: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of something at work, at a step of its own."""

    def record(self, stage: str, facts: Mapping[str, Any]) -> None:
        """What a finished stage says of itself, JSON-able, as in the manifest."""

    def close(self) -> None:
        """The run has ended, well or not."""


class More(Protocol):
    """What a tracker may have besides."""

    def pictures(self, of: str, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Pictures of something at work by name, [H, W, 3]."""

    def tried(self, of: str, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """What a trial was set to and came to, once it has ended."""

    def artefact(self, name: str, path: str) -> None:
        """A local file of the run that is worth keeping: its page, its results."""


OPTIONAL = ("pictures", "tried", "artefact")
"""Methods of `More`."""


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
"""The trackers that there are, one file each, called as their files."""


def parted(of: str) -> tuple[str, str]:
    """(stage, part); the part is "" for a whole stage."""
    stage, _, part = of.partition("/")
    return stage, part


def numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a stage's facts; those of groups and clusters, nested, are no curves."""
    return {
        key: float(value)
        for key, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
