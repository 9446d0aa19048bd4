"""What an audit is given, and what it says of every generated image.

A file of `methods` each; another package adds one by an entry point of the group
`raysynth.audit.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.groups.groups import Groups
from raysynth.knobs import Section, Sections
from raysynth.progress import Progress


@dataclass(frozen=True)
class Generated:
    """The images that are audited, and the run that made them.

    `images`: id, group, adapter and prompt of each; `group` is the one that was asked for. `real`,
    `clusters`, `adapters`, `synthetic`: folders or URIs of the stages. `work`: the audit's own,
    kept over kills. `config`: the run's.
    """

    images: pa.Table
    groups: Groups
    real: str
    clusters: str
    adapters: str
    synthetic: str
    work: str
    config: Sections
    progress: Progress


@dataclass(frozen=True)
class Owed:
    """What was found.

    `scores`: [N, G] the larger, the more an image owes to a group; NaN where it can owe nothing,
    as the model that drew it was not trained on the group. `facts`: what the audit has to say for
    itself, JSON-able. `scratch`: files and folders in `work` that are not needed any more.
    """

    scores: np.ndarray
    facts: Mapping[str, Any] = field(default_factory=dict)
    scratch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passes:
    """How often the network sees an image."""

    trained: int = 0
    """With what a backward pass needs, in all."""
    looked: int = 0
    """Forwards alone beside these, in all."""
    each: int = 0
    """Forwards of each audited image."""
    models: int = 0
    """Models that lie in the run's folder until images were compared."""


def no_refusal(config: Any, knobs: Any) -> None:
    """It works with any configuration."""


def no_refusal_of_groups(config: Any, knobs: Any, groups: Groups, counts: np.ndarray) -> None:
    """It works with any number of images."""


@dataclass(frozen=True)
class Audit:
    """One name of `audit.method`.

    Parameters
    ----------
    title, source : what it is called, and who published it.
    score : (images, knobs) -> what they owe; the same for the same images and seed.
    Knobs : its own knobs.
    check : (config, knobs), raises a ConfigError for what cannot be audited, before Ray.
    check_groups : (config, knobs, groups, [G] training images): the same, as soon as these are
        known.
    passes : (knobs, groups, images of a step) -> what it costs.
    in_words : (knobs, groups) -> what it does, for `raysynth plan`.
    """

    title: str
    source: str
    score: Callable[[Generated, Any], Owed]
    Knobs: type[Section] = Section
    check: Callable[[Any, Any], None] = no_refusal
    check_groups: Callable[[Any, Any, Groups, np.ndarray], None] = no_refusal_of_groups
    passes: Callable[[Any, int, int], Passes] = lambda knobs, groups, batch: Passes()
    in_words: Callable[[Any, int], str] = lambda knobs, groups: "asks no network"
