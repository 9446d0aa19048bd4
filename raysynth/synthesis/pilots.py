"""Colours of drawn images are measured on pilots: some of a run's images, drawn once more by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import ray

from raysynth.cluster.tasks import on_worker
from raysynth.errors import DataError
from raysynth.synthesis.settings import PILOTS
from raysynth.synthesis.task import Task

if TYPE_CHECKING:
    from raysynth.synthesis.colours import Colours

FILE = "colours.json"
RETRIES = 3


def coloured(task: Task, specs: pa.Table, real: str, work: str) -> tuple[Task, dict[str, float]]:
    """The task with what its images' colours are moved by, where its recipe says so.

    One worker finds it, before the first image; an attempt that goes on has that of its images.

    Parameters
    ----------
    specs : of all images, `specs.SPECS`.
    real, work : folders or URIs of the real table and of the stage's attempt.

    Returns
    -------
    The task, and group name -> how many times as widely as real colours those of the pilots lay.
    """
    if not task.drawing.recipe.recolours:
        return task, {}
    from raysynth.synthesis import colours  # torch: not in a driver that has no use for it

    path = f"{work}/{FILE}"
    try:
        found = colours.read(path)
    except DataError:  # none yet
        pilots = specs.take(pilot_rows(specs["group"].to_numpy()))
        search = on_worker(find_colours, task.resources, max_retries=RETRIES)
        found = ray.get(search.remote(task, pilots, real))
        colours.keep(found, path)
    way = replace(task.drawing.way, colours=path)
    names = task.scoring.groups.names
    return replace(task, drawing=replace(task.drawing, way=way)), dict(
        zip(names, found.wider, strict=True)
    )


def pilot_rows(group: np.ndarray) -> np.ndarray:
    """Rows of at most PILOTS images of each group, evenly spaced; `group`: [N] of all."""
    rows = [np.flatnonzero(group == g) for g in np.unique(group)]
    return np.concatenate([own[:: -(-len(own) // PILOTS)] for own in rows])


def find_colours(task: Task, pilots: pa.Table, real: str) -> Colours:
    """Draw the pilots and compare their mean colours with those of real training images."""
    from raysynth.models.device import use_threads
    from raysynth.synthesis import colours
    from raysynth.synthesis.actor import DiffusionSampler
    from raysynth.synthesis.encoded import real_pixels

    use_threads(task.resources.cpus_per_worker)
    plain = task.drawing.synthesis.model_copy(update={"scorers": ()})
    drawing = replace(task.drawing, synthesis=plain, compiled=False)
    sampler = DiffusionSampler(replace(task, drawing=drawing))
    parts = range(0, pilots.num_rows, plain.batch_size)
    drawn = [sampler.draw(pilots.slice(first, plain.batch_size)) for first in parts]
    known, group = real_pixels(real, sampler.generate.side)
    return colours.colours_of(
        colours.mean_colours(known),
        group,
        colours.mean_colours(np.concatenate(drawn)),
        pilots["group"].to_numpy(),
        task.scoring.groups,
    )
