"""The plan of a run: which image each row is, worked out for the rows that are asked for.

A spec is a function of its row, so a plan of ten million images is as small as one of ten; only
what is bred is known row by row (`Listed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.adapters.record import Adapter
from raysynth.groups.groups import Groups
from raysynth.synthesis.specs import NONE, Asked, Voice, voice_specs, voices_of

START, STOP = "start", "stop"
"""Columns of ranges of rows: from the first on, up to the last, which is not among them."""


class Plan(Protocol):
    """Rows sorted by group, then id."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """[G] images of every group."""

    def specs(self, start: int, stop: int) -> pa.Table:
        """The specs of rows `start` to `stop`, the last one not among them; one at least."""


@dataclass(frozen=True)
class Spoken:
    """What voices say: the images of each, one after the other."""

    asked: Asked
    groups: Groups
    voices: tuple[tuple[Voice, int], ...]
    """With their numbers of images, by group."""
    sources: Mapping[int, Sequence[str]] | None = None
    aims: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """See `Plan`."""
        found = np.zeros(self.groups.count, np.int64)
        for voice, count in self.voices:
            found[voice.group] += count
        return found

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([count for _, count in self.voices], dtype=np.int64)

    def specs(self, start: int, stop: int) -> pa.Table:
        """See `Plan`."""
        tables = []
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            voice, count = self.voices[number]
            end = int(self._ends[number])
            numbers = np.arange(start, min(stop, end)) - (end - count)
            tables.append(self._of(voice, numbers, start))
            start, number = end, number + 1
        return pa.concat_tables(tables).combine_chunks()

    def _of(self, voice: Voice, numbers: np.ndarray, start: int) -> pa.Table:
        edited = None
        if self.sources:
            dealt = self.sources[voice.group]
            edited = [dealt[n % len(dealt)] for n in numbers.tolist()]
        return voice_specs(self.asked, self.groups, voice, numbers, start, edited, self.aims)


@dataclass(frozen=True)
class Listed:
    """What was found row by row."""

    table: pa.Table
    """Specs in the order of their rows."""
    groups: Groups

    @property
    def counts(self) -> NDArray[np.int64]:
        """See `Plan`."""
        return np.bincount(self.table["group"].to_numpy(), minlength=self.groups.count)

    def specs(self, start: int, stop: int) -> pa.Table:
        """See `Plan`."""
        return self.table.slice(start, stop - start)


def plan_specs(
    asked: Asked,
    adapters: Sequence[Adapter],
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    sources: Mapping[int, Sequence[str]] | None = None,
    aims: Mapping[str, Sequence[int]] = NONE,
) -> Spoken:
    """The plan of a run.

    Every group gets `synthesis.images_per_group` candidates, shared equally by its models: a
    small cluster is a rare look, and equal shares keep it (Basu et al. do not publish theirs).

    Parameters
    ----------
    adapters : what fine-tuning produced; none where nothing is trained.
    counts : [G] training images per group.
    sources : group -> ids of the real images that are edited for it, in turn
        (`sources.deal_sources`); None where images are drawn from noise.
    aims : name of a guidance term -> [G] aims that the images of a voice take in turn; a column
        of its name has each image's.

    Raises
    ------
    StageError
        If a group has no adapter and none of those that might lend theirs has one.
    """
    voices = tuple(voices_of(asked, adapters, groups, counts))
    return Spoken(asked, groups, voices, sources, aims)


def whole(plan: Plan) -> pa.Table:
    """The specs of all rows."""
    return plan.specs(0, int(plan.counts.sum()))


def group_ranges(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Group, first row and the one after its last, of every group that has any."""
    start = 0
    for group, count in enumerate(plan.counts.tolist()):
        if count:
            yield group, start, start + count
        start += count


def batches(missing: NDArray[np.int64], size: int) -> pa.Table:
    """Ranges [R, 2] of rows cut at the multiples of `size`, as START and STOP.

    So a batch holds the same rows in an attempt that goes on as in one that was not cut off.
    """
    starts = [
        np.unique(np.concatenate([[first], np.arange(first // size + 1, -(-last // size)) * size]))
        for first, last in missing.tolist()
    ]
    stops = [
        np.concatenate([own[1:], [last]])
        for own, (_, last) in zip(starts, missing.tolist(), strict=True)
    ]
    none = np.zeros(0, np.int64)
    columns = {START: [none, *starts], STOP: [none, *stops]}
    return pa.table({name: np.concatenate(own).astype(np.int64) for name, own in columns.items()})
