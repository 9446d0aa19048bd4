"""What a grouping method is given, and what it says of every image.

A file of `methods` each; another package adds one by an entry point of the group
`raysynth.grouping.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.groups.groups import Groups
from raysynth.knobs import Section, Sections
from raysynth.progress import Progress
from raysynth.storage.tables import read_parts, split_files

POSTERIOR = "posterior"
"""Column of `Grouped.rows`: [A] shares, how sure the method is of each attribute."""
KNOWN = "known"
"""Column of `Grouped.rows`: whether the attribute is the one that the data set gives."""


@dataclass(frozen=True)
class Ungrouped:
    """The real images that a method groups.

    `real`: folder or URI of the real table. `groups`: the data set's own; a method for images
    without attributes reads labels alone. `splits`: whose images are asked for. `config`: the
    run's, for models and workers; see `Method.decided_by`.
    """

    real: str
    groups: Groups
    splits: tuple[str, ...]
    seed: int
    config: Sections
    progress: Progress

    def parts(self, *columns: str) -> Iterator[pa.Table]:
        """Rows of the table with these columns (all: none named), a file at a time."""
        for split in self.splits:
            yield from read_parts(self.real, columns, split_files(self.real, split))


@dataclass(frozen=True)
class Grouped:
    """The attributes that were found.

    `rows`: `id: string` and `attribute`, integers from 0; every image that was asked for once, in
    any order; `posterior`, a list of shares per attribute, where the method knows how sure it is;
    `known`, where it keeps attributes that the data set gives.
    `words`: how prompts speak of an attribute, by index; a found one has no word of its own unless
    the method knows what its images show. `facts`: what it has to say for itself, JSON-able.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    rows: pa.Table
    facts: Mapping[str, Any] = field(default_factory=dict)


def nothing_else(config: Sections) -> Mapping[str, Any]:
    """Its own knobs, the seed and the images decide alone."""
    return {}


def no_refusal(config: Any, knobs: Any) -> None:
    """It works with any configuration."""


def no_refusal_of_groups(knobs: Any, groups: Groups, counts: np.ndarray) -> None:
    """It works with any number of images."""


def no_warning(config: Any, knobs: Any, groups: Groups) -> Sequence[str]:
    """Nothing to be said."""
    return ()


@dataclass(frozen=True)
class Passes:
    """Images that pass the base's network: in training, and besides, forwards alone.

    `adapters`: LoRA is what is trained, by the defaults of `finetune`; else all weights.
    """

    trained: int = 0
    forward: int = 0
    adapters: bool = False


def no_passes(knobs: Any, attributes: int, images: int) -> Passes:
    """It asks no base."""
    return Passes()


@dataclass(frozen=True)
class Method:
    """One name of `grouping.method`.

    Parameters
    ----------
    title, source : what it is called, and who published it.
    group : (images, knobs) -> their attributes; the same for the same images and seed. `knobs`: a
        `Knobs`.
    Knobs : its own knobs.
    decided_by : what else of the configuration its answer depends on, JSON-able: the models that
        it loads, the trainings that it makes.
    check : (config, knobs), raises a ConfigError or ModelError for what cannot work, before Ray.
    check_images : (knobs, groups, [K, A + 1] training images of every class by the data set's
        attribute, last those whose is not known): raises a DataError where it has too few.
    warn : (config, knobs, groups), sentences on what can be run and is hardly meant.
    steps : (knobs), optimizer steps of a classifier that it trains on the real images.
    passes : (knobs, attributes, training images), of the base's network.
    groups_test : its groups are what test is measured in too. Else test images are measured in the
        data set's own groups where it has attributes: what a classifier is fair to is no choice of
        the method that helped to train it.
    """

    title: str
    source: str
    group: Callable[[Ungrouped, Any], Grouped]
    Knobs: type[Section] = Section
    decided_by: Callable[[Any], Mapping[str, Any]] = nothing_else
    groups_test: bool = False
    check: Callable[[Any, Any], None] = no_refusal
    check_images: Callable[[Any, Groups, np.ndarray], None] = no_refusal_of_groups
    warn: Callable[[Any, Any, Groups], Sequence[str]] = no_warning
    steps: Callable[[Any], int] = lambda knobs: 0
    passes: Callable[[Any, int, int], Passes] = no_passes


def attributes(
    ids: Sequence[str],
    found: Sequence[int],
    posterior: np.ndarray | None = None,
    known: np.ndarray | None = None,
) -> pa.Table:
    """`Grouped.rows` of two lists, and of [N, A] shares and [N] bool where they are told."""
    columns = {"id": pa.array(ids, pa.string()), "attribute": pa.array(found, pa.int64())}
    if posterior is not None:
        columns[POSTERIOR] = pa.array(list(posterior.astype(np.float32)), pa.list_(pa.float32()))
    if known is not None:
        columns[KNOWN] = pa.array(known, pa.bool_())
    return pa.table(columns)
