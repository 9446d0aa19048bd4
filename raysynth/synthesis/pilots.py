"""Colours of drawn images are measured on pilots: some of a run's images, drawn once more by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import ray

from raysynth.cluster.tasks import RETRIES, on_worker
from raysynth.errors import DataError
from raysynth.models.threads import use_threads
from raysynth.synthesis import colours
from raysynth.synthesis.actor import DiffusionSampler
from raysynth.synthesis.plan import Plan, group_ranges
from raysynth.synthesis.settings import PILOTS
from raysynth.synthesis.task import Task

FILE = "colours.json"


def coloured(task: Task, plan: Plan, real: str, work: str) -> tuple[Task, dict[str, float]]:
    """The task with what its images' colours are moved by, where its recipe says so.

    One worker finds it, before the first image; an attempt that goes on has that of its images.

    Parameters
    ----------
    plan : of all images.
    real, work : folders or URIs of the real table and of the stage's attempt.

    Returns
    -------
    The task, and group name -> how many times as widely as real colours those of the pilots lay.
    """
    if not task.drawing.recipe.recolours:
        return task, {}
    path = f"{work}/{FILE}"
    try:
        found = colours.read(path)
    except DataError:  # none yet
        pilots = pilots_of(plan)
        search = on_worker(find_colours, task.resources, max_retries=RETRIES)
        found = ray.get(search.remote(task, pilots, real))
        colours.keep(found, path)
    way = replace(task.drawing.way, colours=path)
    wider = dict(zip(task.scoring.groups.names, found.wider, strict=True))
    return replace(task, drawing=replace(task.drawing, way=way)), wider


def pilots_of(plan: Plan) -> pa.Table:
    """The specs of at most PILOTS images of each group, every so many-th: they lie by cluster."""
    rows = [
        row
        for _, start, stop in group_ranges(plan)
        for row in range(start, stop, -(-(stop - start) // PILOTS))
    ]
    return pa.concat_tables([plan.specs(row, row + 1) for row in rows]).combine_chunks()


def find_colours(task: Task, pilots: pa.Table, real: str) -> colours.Colours:
    """Draw the pilots and compare their mean colours with those of real training images."""
    from raysynth.synthesis.encoded import real_pixels  # diffusers: not in the driver

    use_threads(task.resources.cpus_per_worker)
    plain = task.unscored
    sampler = DiffusionSampler(replace(plain, drawing=replace(plain.drawing, compiled=False)))
    each = plain.drawing.synthesis.batch_size
    parts = range(0, pilots.num_rows, each)
    drawn = [sampler.draw(pilots.slice(first, each)) for first in parts]
    known, group = real_pixels(real, sampler.generate.side)
    return colours.colours_of(
        colours.mean_colours(known),
        group,
        colours.mean_colours(np.concatenate(drawn)),
        pilots["group"].to_numpy(),
        task.scoring.groups,
    )
