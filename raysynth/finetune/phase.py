"""Phases: stretches of steps in which the same adapters train, laid out as whole batches.

Adapters come and go, and their batches differ in length; between two such changes every step is the
same batch arithmetic, so it is laid out once per phase and the step itself holds no Python per
adapter. Batches of different lengths are filled up to equal runs by rows of weight zero, since the
grouped layers work on runs of equal length. All images of a phase have one size (`turns`).

Shape suffixes: P training adapters, T micro-batches of the phase, B rows of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from raysynth.finetune.draws import noise_of, offset_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import Material
from raysynth.finetune.objective import Noised
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser

RUN_COST = 0.35
"""Cost of one more run, in rows (benchmarks/ragged.py)."""


@dataclass(frozen=True)
class Row:
    """The rows that one adapter brings: its job, its material, and where its next batch begins."""

    job: Job
    material: Material
    at: int
    """Number of its next micro-batch among all of the job, by which its noise is drawn."""
    first: int
    """Number of that among those of the material."""

    @property
    def count(self) -> int:
        """Rows per micro-batch."""
        return self.material.entries.shape[1]

    def narrowed(self, micro_batches: int) -> Row:
        """The same row with nothing but what its next micro-batches draw, as often as they do."""
        own, stretch = self.material, slice(self.first, self.first + micro_batches)
        entries, spoken = own.entries[stretch], own.spoken[stretch]
        numbers = torch.arange(entries.numel(), device=entries.device).reshape(entries.shape)
        texts, also = own.texts, {name: other[stretch] for name, other in own.also.items()}
        if not also:  # prompts that are compared keep their numbers; there are few of them
            texts, spoken = texts.take(spoken.flatten()), numbers
        material = replace(
            own,
            moments=own.moments[entries.flatten()],
            texts=texts,
            entries=numbers,
            spoken=spoken,
            uniform=own.uniform[stretch],
            also=also,
            values={name: value[stretch] for name, value in own.values.items()},
            images={name: value[entries.flatten()] for name, value in own.images.items()},
        )
        return replace(self, material=material, first=0)


@dataclass(frozen=True)
class Phase:
    """All micro-batches of a phase."""

    rows: list[Row]
    moments: Tensor
    """[E, 2, C, h, w] encoded images of all adapters."""
    texts: Condition
    """S rows: what the prompts of all adapters say."""
    entries: Tensor
    """[T, B] int64 encoded image of each row."""
    spoken: Tensor
    """[T, B] int64 row of `texts` of each row."""
    also: Mapping[str, Tensor]
    """Name -> [T, B] int64 row of `texts`: other prompts of each row."""
    values: Mapping[str, Tensor]
    """Name -> [T, B] float32 numbers of each row."""
    images: Mapping[str, Tensor]
    """Name -> [E, ...] float32: what else is known of the encoded images."""
    uniform: Tensor
    """[T, B] float32 in (0, 1)."""
    weights: Tensor
    """[P, B] weight of each row in each adapter's loss."""
    columns: list[Tensor]
    """Which of its own rows each adapter's laid-out rows are; repeats fill its last run."""
    jobs: list[Job]
    """[B] whose each laid-out row is."""

    def noise(self, micro: int, seed: int, probe: bool = False) -> Tensor:
        """[2, B, C, h, w] normal numbers of a micro-batch: for the latents' spread, as noise.

        `probe`: [1, B, C, h, w] others, of a stream of their own.
        """
        parts = []
        for row, columns in zip(self.rows, self.columns, strict=True):
            shape = (1 if probe else 2, row.count, *self.moments.shape[2:])
            parts.append(noise_of(row.job, row.at + micro, shape, seed, probe)[:, columns])
        return torch.cat(parts, 1).to(self.moments.device, non_blocking=True)

    def offset(self, micro: int, seed: int) -> Tensor:
        """[B, C, 1, 1] normal numbers of a micro-batch, for what all of a channel has more."""
        parts = []
        for row, columns in zip(self.rows, self.columns, strict=True):
            shape = (row.count, self.moments.shape[2], 1, 1)
            parts.append(offset_of(row.job, row.at + micro, shape, seed)[columns])
        return torch.cat(parts).to(self.moments.device, non_blocking=True)

    def noised(self, micro: int, seed: int, denoise: Denoiser, offset: float = 0.0) -> Noised:
        """A micro-batch at its noise levels, as the objective and its terms are given it.

        `offset`: see `finetune.noise_offset`.
        """
        noise_2BCHW = self.noise(micro, seed)
        if offset:
            noise_2BCHW[1] += offset * self.offset(micro, seed)
        mean, spread = self.moments[self.entries[micro]].float().unbind(1)
        prediction = denoise.base.prediction
        timestep_B = prediction.draw(self.uniform[micro])
        clean = mean + spread * noise_2BCHW[0]
        noisy, target = prediction.noised(clean, noise_2BCHW[1], timestep_B)
        own = self.spoken[micro]
        return Noised(
            denoise=denoise,
            x=noisy,
            timestep=timestep_B,
            condition=self.texts.take(own),
            clean=clean,
            noise=noise_2BCHW[1],
            target=target,
            also={name: self.texts.take(other[micro]) for name, other in self.also.items()},
            differs={name: other[micro] != own for name, other in self.also.items()},
            values={name: value[micro] for name, value in self.values.items()},
            images={name: value[self.entries[micro]] for name, value in self.images.items()},
            jobs=self.jobs,
            draw_probe=lambda: self.noise(micro, seed, probe=True)[0],
        )


def lay_out(rows: Sequence[Row], micro_batches: int, before: Phase | None = None) -> Phase:
    """The next micro-batches of some adapters.

    `before`: the phase that ended; its images are not gathered again when the adapters stay.
    """
    length, each = run_length([row.count for row in rows]), [row.material for row in rows]
    columns = [
        torch.arange(-(-row.count // length) * length).clamp(max=row.count - 1) for row in rows
    ]
    if before is not None and _same(before.rows, rows):
        moments, texts, images = before.moments, before.texts, before.images
    else:
        moments = torch.cat([own.moments for own in each])
        texts = Condition.cat([own.texts for own in each])
        images = {n: torch.cat([own.images[n] for own in each]) for n in each[0].images}
    firsts = np.cumsum([0, *(len(own.moments) for own in each)]).tolist()
    prompts = np.cumsum([0, *(len(own.texts) for own in each)]).tolist()
    beside = partial(_beside, rows, columns, micro_batches)
    return Phase(
        rows=list(rows),
        moments=moments,
        texts=texts,
        entries=beside([own.entries for own in each], firsts),
        spoken=beside([own.spoken for own in each], prompts),
        also={name: beside([own.also[name] for own in each], prompts) for name in each[0].also},
        values={name: beside([own.values[name] for own in each]) for name in each[0].values},
        images=images,
        uniform=beside([own.uniform for own in each]),
        weights=_weights(rows, columns).to(moments.device),
        columns=columns,
        jobs=[row.job for row, own in zip(rows, columns, strict=True) for _ in own],
    )


def _same(before: Sequence[Row], rows: Sequence[Row]) -> bool:
    """Whether rows are of the same material as those before."""
    pairs = zip(before, rows, strict=False)
    return len(before) == len(rows) and all(a.material is b.material for a, b in pairs)


def _beside(
    rows: Sequence[Row],
    columns: Sequence[Tensor],
    micro_batches: int,
    draws_of: Sequence[Tensor],
    firsts: Sequence[int] | None = None,
) -> Tensor:
    """[T, B] the adapters' next draws side by side.

    Parameters
    ----------
    draws_of : of each adapter, something of all its draws.
    firsts : what the numbers of each adapter begin at, where they number things of all adapters.
    """
    found = []
    for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
        draws = draws_of[number][
            row.first : row.first + micro_batches, column.to(draws_of[number].device)
        ]
        found.append(draws if firsts is None else draws + firsts[number])
    return torch.cat(found, 1)


def run_length(counts: Sequence[int], run_cost: float = RUN_COST) -> int:
    """Length of the equal runs that lay these many rows per adapter out most cheaply."""
    lengths = range(max(counts), 0, -1)
    return min(lengths, key=lambda length: layout_cost(counts, length, run_cost))


def layout_cost(counts: Sequence[int], length: int, run_cost: float) -> float:
    """Cost, in rows, of these many rows per adapter in runs of one length, the last filled up."""
    return sum(-(-count // length) for count in counts) * (length + run_cost)


def _weights(rows: Sequence[Row], columns: Sequence[Tensor]) -> Tensor:
    """[P, B] each row's weight in its own adapter's loss; nothing of what fills a run up."""
    weights = torch.zeros(len(rows), sum(map(len, columns)))
    start = 0
    for p, (row, column) in enumerate(zip(rows, columns, strict=True)):
        weights[p, start : start + row.count] = row.material.weights
        start += len(column)
    return weights
