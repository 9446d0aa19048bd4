"""Phases: stretches of steps in which the same adapters train, laid out as whole batches.

Adapters come and go, and their batches differ in size; between two such changes every step is the
same batch arithmetic, so it is laid out once per phase and the step itself holds no Python per
adapter. Batches of different sizes are filled up to equal runs by rows of weight zero, since the
grouped layers work on runs of equal length.

Shape suffixes: P training adapters, T micro-batches of the phase, B rows of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysynth.finetune.draws import noise_of
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
    """Number of its next micro-batch."""

    @property
    def count(self) -> int:
        """Rows per micro-batch."""
        return self.material.entries.shape[1]


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
    uniform: Tensor
    """[T, B] float32 in (0, 1)."""
    weights: Tensor
    """[P, B] weight of each row in each adapter's loss."""
    columns: list[Tensor]
    """Which of its own rows each adapter's laid-out rows are; repeats fill its last run."""

    def noise(self, micro: int, seed: int) -> Tensor:
        """[2, B, C, h, w] normal numbers of a micro-batch: for the latents' spread, as noise."""
        parts = []
        for row, columns in zip(self.rows, self.columns, strict=True):
            shape = (2, row.count, *self.moments.shape[2:])
            parts.append(noise_of(row.job, row.at + micro, shape, seed)[:, columns])
        return torch.cat(parts, 1).to(self.moments.device, non_blocking=True)

    def noised(self, micro: int, seed: int, denoise: Denoiser) -> Noised:
        """A micro-batch at its noise levels, as the objective and its terms are given it."""
        noise_2BCHW = self.noise(micro, seed)
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
        )


def lay_out(rows: Sequence[Row], micro_batches: int, before: Phase | None = None) -> Phase:
    """The next micro-batches of some adapters.

    `before`: the phase that ended; its images are not gathered again when the adapters stay.
    """
    length = run_length([row.count for row in rows])
    columns = [torch.arange(-(-row.count // length) * length) for row in rows]
    columns = [c.clamp(max=row.count - 1) for c, row in zip(columns, rows, strict=True)]
    stays = before is not None and [r.job for r in before.rows] == [r.job for r in rows]
    if before is not None and stays:
        moments, texts = before.moments, before.texts
    else:
        moments = torch.cat([row.material.moments for row in rows])
        texts = Condition.cat([row.material.texts for row in rows])
    entries, spoken, uniform = [], [], []
    also: dict[str, list[Tensor]] = {name: [] for name in rows[0].material.also}
    values: dict[str, list[Tensor]] = {name: [] for name in rows[0].material.values}
    first_entry = first_text = 0
    for row, column in zip(rows, columns, strict=True):
        column = column.to(moments.device)
        part = slice(row.at, row.at + micro_batches)
        entries.append(row.material.entries[part][:, column] + first_entry)
        spoken.append(row.material.spoken[part][:, column] + first_text)
        uniform.append(row.material.uniform[part][:, column])
        for name, found in also.items():
            found.append(row.material.also[name][part][:, column] + first_text)
        for name, found in values.items():
            found.append(row.material.values[name][part][:, column])
        first_entry += len(row.material.moments)
        first_text += len(row.material.texts)
    return Phase(
        rows=list(rows),
        moments=moments,
        texts=texts,
        entries=torch.cat(entries, 1),
        spoken=torch.cat(spoken, 1),
        also={name: torch.cat(found, 1) for name, found in also.items()},
        values={name: torch.cat(found, 1) for name, found in values.items()},
        uniform=torch.cat(uniform, 1),
        weights=_weights(rows, columns).to(moments.device),
        columns=columns,
    )


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
