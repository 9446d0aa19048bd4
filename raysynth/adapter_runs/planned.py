"""`raysynth train --dry-run`: adapters, minutes, memory, what a run would do; starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from raysynth.adapter_runs.course import TRAIN, asked_of, warnings_of
from raysynth.adapter_runs.settings import TrainConfig
from raysynth.config.config import Config
from raysynth.finetune.jobs import Job
from raysynth.models.family import reader_of
from raysynth.models.sizes import placed
from raysynth.models.sources import known_family, resolve
from raysynth.planning.costs import (
    FLOAT_BYTES,
    GPUS_GB,
    most_at_once,
    rows_per_image,
    training_cost,
    training_memory,
)
from raysynth.planning.sizes import base_shape
from raysynth.planning.weights import held_bytes
from raysynth.rehearsal import NAMED, stage_lines, time_line
from raysynth.sides import Sides
from raysynth.terminal import masked, shown


def rehearsed(config: TrainConfig) -> Iterator[str]:
    """Lines that say what a run would train, take and do.

    Raises
    ------
    ConfigError, DataError, ModelError
        What the run would refuse on any machine.
    """
    folders, jobs = asked_of(config)
    yield from _listed(jobs)
    yield ""
    assumptions: list[str] = []
    yield from _costs(config, jobs, assumptions)
    if config.aspect_ratio > 1:
        yield f"sizes        {_sizes(config, jobs)}"
    captions = f"{folders.own:,} of {len(folders.files):,} images"
    yield f"captions     of their own: {captions}; others: {shown(config.caption)}"
    yield f"to           {masked(config.root)}"
    yield from stage_lines(TRAIN, config)
    for each in (*assumptions, *warnings_of(config, folders, jobs)):
        yield f"warning: {each}"


def _listed(jobs: list[Job]) -> Iterator[str]:
    first = sorted(jobs, key=lambda job: job.name)[:NAMED]
    width = max(len("adapter"), *(len(job.name) for job in first))
    yield f"{'adapter':<{width}}  {'images':>7} {'steps':>7} {'batch':>5}  prompt"
    for job in first:
        prompt = job.captions[0] if job.captions else job.prompts[job.group]
        more = f" (and {len(set(job.captions)) - 1} more)" if len(set(job.captions)) > 1 else ""
        yield (
            f"{job.name:<{width}}  {len(job.ids):>7,} {job.steps:>7,} {job.batch:>5,}  "
            f"{shown(prompt)}{more}"
        )
    if len(jobs) > NAMED:
        yield f"and {len(jobs) - NAMED:,} more"


def _sizes(config: TrainConfig, jobs: list[Job]) -> str:
    """How many images are trained at each height and width."""
    family = known_family(config.base)
    if family is None:
        return "by those of the base, which the hub is not asked for here"
    shape = family.shape(reader_of(Path(resolve(config.base.name))))
    found = Counter[Sides]()
    for job in jobs:
        sizes, place = placed(job.sizes, shape, config.aspect_ratio)
        found.update(sizes[each] for each in place.tolist())
    told = (f"{height} x {width} ({n:,})" for (height, width), n in found.most_common())
    return f"height x width: {', '.join(told)} images"


def _costs(config: TrainConfig, jobs: list[Job], assumptions: list[str]) -> Iterator[str]:
    training, settings = config.training, config.finetune
    shape = base_shape(Config(base=config.base), assumptions)
    cost = training_cost(training, settings, shape)
    held = held_bytes(config.base, training, settings, cost, shape)
    memory = training_memory(training, settings, cost, held)
    flops = cost.training * sum(job.work for job in jobs) * rows_per_image(training, settings)
    steps = sum(job.steps for job in jobs)
    yield (
        f"fine-tuning  {len(jobs):,} adapter{'s' * (len(jobs) != 1)}, {steps:,} steps together, "
        f"{cost.trained / 1e6:,.2f} M numbers each"
    )
    yield time_line(config.resources, config.base, "fine-tuning", flops)
    share, each = settings.memory_share, (memory(2) - memory(1)) / 1e6
    fitting = ", ".join(
        f"{most_at_once(memory, gb * 1e9 * share, lora=True):,} in {gb} GB" for gb in GPUS_GB
    )
    yield f"memory       {memory(1) / 1e9:.1f} GB for one adapter, {each:,.0f} MB for each further"
    yield f"             one that trains beside it; on a GPU at once: {fitting}"
    yield f"storage      {FLOAT_BYTES * len(jobs) * cost.trained / 1e6:,.1f} MB of adapters"
