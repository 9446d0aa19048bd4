"""What an adapter is trained on where its images have several sizes: a material for each of them.

All images of a step have one size, so that they are one batch; which one follows from the adapter's
own images alone, as every random choice does. Sizes take turns evenly, each as often as it has
images: adapters of like images are at one size in the same steps, and train as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysynth.finetune.draws import Draws
from raysynth.finetune.jobs import Job
from raysynth.finetune.material import Material
from raysynth.models.shape import Shape
from raysynth.models.sizes import placed
from raysynth.sides import Sides

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Sized:
    """The materials of an adapter."""

    parts: tuple[Material, ...]
    """One for each size."""
    order: Places
    """[T] which of them each micro-batch is of."""

    @property
    def usual(self) -> Material:
        """That of most micro-batches."""
        return self.parts[int(np.bincount(self.order).argmax())]

    def at(self, micro: int) -> tuple[Material, int]:
        """The material of a micro-batch, and the number of that among its own."""
        part = self.order[micro]
        return self.parts[part], int((self.order[:micro] == part).sum())

    def run(self, micro: int) -> int:
        """Micro-batches from one on, until the first of another size or the end."""
        other = np.flatnonzero(self.order[micro:] != self.order[micro])
        return int(other[0]) if len(other) else len(self.order) - micro


def sized(job: Job, shape: Shape) -> tuple[tuple[Sides, ...], Places]:
    """The sizes that a job's images are trained at, and [N] which of them each image is.

    Height and width in pixels; one size, the base's own, where the job has none of its images.
    """
    if not job.sizes:
        return ((shape.side, shape.side),), np.zeros(len(job.ids), np.int64)
    return placed(job.sizes, shape, job.aspect_ratio)


def parts_of(job: Job, draws: Draws, place: Places) -> list[tuple[Job, Draws]]:
    """A job's images and draws of each size, as those of a job of these images alone.

    `place`: see `sized`. Every row of draws has one size, or there is but one row.
    """
    parts = []
    for part in range(int(place.max()) + 1):
        own = np.flatnonzero(place == part)
        number = np.cumsum(place == part) - 1
        mine = place[draws.rows] == part
        kept = np.ix_(mine.any(1), mine.any(0))
        chosen = Draws(
            number[draws.rows[kept]], draws.flips[kept], draws.dropped[kept], draws.uniform[kept]
        )
        parts.append((_of_images(job, own.tolist()), chosen))
    return parts


def _of_images(job: Job, own: Sequence[int]) -> Job:
    """A job of some of its images; their captions go with them."""
    return replace(
        job,
        ids=tuple(job.ids[each] for each in own),
        groups=tuple(job.groups[each] for each in own),
        captions=tuple(job.captions[each] for each in own) if job.captions else (),
        sizes=(),
    )
