"""The plan of a run: which image each row is, by adapter, prompt and number (`synthesis.plan`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.groups.groups import Groups
from raysynth.synthesis.specs import ROW, SPECS, image_seed

BASE = "base"
"""What the images of the base by itself are grouped as."""


@dataclass(frozen=True)
class Drawn:
    """What is the same of all images of a run."""

    generator: str
    guidance_scale: float
    steps: int
    seed: int
    """The run's."""
    negative: bool
    """Whether negative prompts are asked."""


@dataclass(frozen=True)
class Rows:
    """The images of a run: of each adapter, of each of its prompts, `count` images."""

    names: tuple[str, ...]
    """Of adapters; "" for the base by itself."""
    prompts: pd.DataFrame
    """See `prompts.Prompts.rows`."""
    adapters: Sequence[tuple[str, ...]] = field(repr=False)
    """Of each row of `prompts`, the adapters that it is drawn with."""
    drawn: Drawn

    @property
    def groups(self) -> Groups:
        """A group for each adapter."""
        labels = tuple(name or BASE for name in self.names)
        return Groups(labels, ("",), labels, ("",))

    @cached_property
    def _parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """[S] adapter, [S] row of prompts and [S] last image's end of every stretch of images."""
        place = {name: number for number, name in enumerate(self.names)}
        pairs = [(place[name], row) for row, own in enumerate(self.adapters) for name in own]
        adapter, row = np.array(sorted(pairs), np.int64).T
        counts = self.prompts["count"].to_numpy()[row]
        return adapter, row, np.cumsum(counts, dtype=np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """See `synthesis.plan.Plan`."""
        adapter, _, ends = self._parts
        found = np.zeros(len(self.names), np.int64)
        np.add.at(found, adapter, np.diff(ends, prepend=0))
        return found

    def specs(self, start: int, stop: int) -> pa.Table:
        """See `synthesis.plan.Plan`."""
        adapter, row, ends = self._parts
        images = np.arange(start, stop)
        part = np.searchsorted(ends, images, side="right")
        number = images - np.append(0, ends)[part]
        return self._table(images, adapter[part], row[part], number)

    def _table(
        self, images: np.ndarray, adapter: np.ndarray, row: np.ndarray, number: np.ndarray
    ) -> pa.Table:
        own, count = self.prompts.iloc[row], len(images)
        names = [self.names[each] for each in adapter]
        triples = list(zip(names, row.tolist(), number.tolist(), strict=True))
        given = own["seed"].to_numpy()
        seeds = [
            int(given[place]) + n if given[place] >= 0 else image_seed(self.drawn.seed, r, 0, n)
            for place, (_, r, n) in enumerate(triples)
        ]
        columns = {
            ROW.name: images,
            "id": [f"{name or BASE}-{r:06d}-{n:04d}" for name, r, n in triples],
            "label": adapter,
            "attribute": np.zeros(count, np.int64),
            "group": adapter,
            "cluster": np.zeros(count, np.int32),
            "generator": [self.drawn.generator] * count,
            "adapter": names,
            "source": [""] * count,
            "prompt": own["prompt"].tolist(),
            "negative_prompt": own["negative"].tolist() if self.drawn.negative else [""] * count,
            "seed": seeds,
            "guidance_scale": [self.drawn.guidance_scale] * count,
            "steps": [self.drawn.steps] * count,
        }
        return pa.table([pa.array(columns[f.name], f.type) for f in SPECS], schema=SPECS)
