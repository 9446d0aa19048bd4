"""The generating actor: specs, or the plan's rows, in; scored pixels out."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.errors import RaysynthError
from raysynth.models.threads import use_threads
from raysynth.scoring.scorer import open_scorers
from raysynth.synthesis import colours
from raysynth.synthesis.plan import START, STOP, Plan
from raysynth.synthesis.sources import SOURCE_IMAGE
from raysynth.synthesis.specs import SPECS
from raysynth.synthesis.task import Sampler, Task
from raysynth.synthesis.timeline import COLUMN, Stopwatch


class DiffusionSampler:
    """The base model with its adapters, and the scorers' models.

    Generation and scoring share the actor: a second pool would load torch and hold a device a
    second time, and every image would travel between them.
    """

    def __init__(self, task: Task) -> None:
        """Load the generator, and what scores."""
        from raysynth.synthesis.drawing import ImageGenerator  # diffusers: not in the driver

        self.generate = ImageGenerator(task.drawing, task.scoring.adapters, task.names)
        self.score = open_scorers(task.drawing.synthesis.scorers, task.scoring)
        self.contrasts, self.aims = task.contrasts, tuple(task.drawing.way.aims)
        self.denoise, way = self.generate.denoise, task.drawing.way
        self.colours = colours.read(way.colours) if way.colours else None

    def prepare(self, specs: pa.Table) -> Any:
        """Noise and text states, the images that are edited, and what parts them."""
        told, groups = self.contrasts, specs["group"].to_pylist()
        return self.generate.prepare(
            specs["prompt"].to_pylist(),
            specs["negative_prompt"].to_pylist(),
            specs["adapter"].to_pylist(),
            specs["seed"].to_pylist(),
            specs[SOURCE_IMAGE] if SOURCE_IMAGE in specs.column_names else None,
            None if told is None else [told[g] for g in groups],
            groups,
            {name: specs[name].to_pylist() for name in self.aims},
            specs["path"].to_pylist() if "path" in specs.column_names else None,
        )

    def draw(self, specs: pa.Table) -> np.ndarray:
        """[B, side, side, 3] uint8 images of specs, one step after the other."""
        return self.decode(self.denoise(self.prepare(specs)), specs)

    def decode(self, latents: Any, specs: pa.Table) -> np.ndarray:
        """Images, in the colours of their groups' real ones where the recipe says so."""
        pixels = self.generate.decode(latents)
        return pixels if self.colours is None else self.colours(pixels, specs["group"].to_numpy())


class _Refusing:
    """Stands for a sampler that could not be opened, and says why when it is asked to draw.

    Of an error in an actor's start Ray hands on the text alone, not which file is damaged.
    """

    def __init__(self, error: RaysynthError) -> None:
        self.error = error

    def prepare(self, specs: pa.Table) -> Any:
        raise self.error


def _opened(task: Task) -> Any:
    """The task's sampler; what it refuses is raised by the first batch."""
    try:
        return (task.sampler or DiffusionSampler)(task)
    except RaysynthError as error:
        return _Refusing(error)


class Synthesizer:
    """One Ray Data actor: generates and scores, on one device.

    Two threads may call it: while one batch holds the device, the other's noise is drawn, its
    specs are made, or its pixels are handed on.
    """

    def __init__(self, task: Task, plan: Plan | None = None) -> None:
        """Open the task's sampler; `plan`: whose rows it is asked for, None: it is given specs."""
        self.plan = plan
        self.cpus = task.resources.cpus_per_worker
        use_threads(self.cpus)
        self.sampler: Sampler = _opened(task)
        self.columns = [*SPECS.names, *task.drawing.told.names]
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._device = threading.Lock()

    def __call__(self, asked: pa.Table) -> pa.Table:
        """[B] specs -> the same rows with raw `pixels`, scores and `spans`.

        With a plan: a row, START and STOP (`plan`), for which it makes the specs.
        """
        use_threads(self.cpus)  # each calling thread has a count of its own
        specs = asked if self.plan is None else self._specs(self.plan, asked)
        watch = Stopwatch(self.name, specs.num_rows)
        batch = self.sampler.prepare(specs)
        with self._device:
            with watch.part("unet"):
                latents = self.sampler.denoise(batch)
            with watch.part("decode"):
                images = self.sampler.decode(latents, specs)
            with watch.part("score"):
                scores = self.sampler.score(images, specs, latents)
        rows = specs.select(self.columns).append_column("pixels", _pixels(images))
        for name, column in scores.items():
            rows = rows.append_column(name, column)
        return rows.append_column(COLUMN, watch.column())

    @staticmethod
    def _specs(plan: Plan, asked: pa.Table) -> pa.Table:
        rows = zip(asked[START].to_pylist(), asked[STOP].to_pylist(), strict=True)
        return pa.concat_tables([plan.specs(start, stop) for start, stop in rows])


def _pixels(images: np.ndarray) -> pa.Array:
    """[B] side * side * 3 bytes each, without a copy."""
    kind = pa.binary(int(np.prod(images.shape[1:])))
    buffer = pa.py_buffer(np.ascontiguousarray(images))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, buffer])
