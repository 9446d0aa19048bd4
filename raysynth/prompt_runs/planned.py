"""`raysynth generate --dry-run`: images, minutes, and what a run would do; starts nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from raysynth.config.config import Config
from raysynth.models.quantisation import kept_as
from raysynth.planning.costs import FLOAT_BYTES, PNG_BYTES
from raysynth.planning.known_costs import cost_of_network
from raysynth.planning.sizes import base_shape
from raysynth.planning.weights import network_bytes
from raysynth.prompt_runs.adapters import Adapters
from raysynth.prompt_runs.course import GENERATE, asked_of
from raysynth.prompt_runs.rows import Rows
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.rehearsal import NAMED, stage_lines, time_line
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.schedules.even import even_levels
from raysynth.terminal import masked


def rehearsed(config: GenerateConfig) -> Iterator[str]:
    """Lines that say what a run would draw, take and do.

    Raises
    ------
    ConfigError, DataError, ModelError
        What the run would refuse on any machine.
    """
    adapters, rows = asked_of(config)
    yield from _listed(adapters, rows)
    yield ""
    assumptions: list[str] = []
    yield from _costs(config, adapters, rows, assumptions)
    yield f"to           {masked(config.root)}"
    yield from stage_lines(GENERATE, config)
    for each in assumptions:
        yield f"warning: {each}"


def _listed(adapters: Adapters, rows: Rows) -> Iterator[str]:
    shown = list(zip(rows.groups.names, rows.names, rows.counts.tolist(), strict=True))
    width = max(len("adapter"), *(len(name) for name, _, _ in shown[:NAMED]))
    yield f"{'adapter':<{width}}  {'images':>9} {'layers':>6} {'rank':>4}  file"
    for name, adapter, count in shown[:NAMED]:
        file = adapters.files.get(adapter)
        about = f"{len(file.layers):>6} {file.rank:>4}  {masked(file.path)}" if file else ""
        yield f"{name:<{width}}  {count:>9,} {about}".rstrip()
    if len(shown) > NAMED:
        yield f"and {len(shown) - NAMED:,} more"


def _costs(
    config: GenerateConfig, adapters: Adapters, rows: Rows, assumptions: list[str]
) -> Iterator[str]:
    recipe, synthesis = config.recipe, config.synthesis
    images = int(rows.counts.sum())
    shape = base_shape(Config(base=config.base), assumptions)
    side = synthesis.image_size or shape.side
    height, width = config.size or (side, side)
    settings = (config.finetune.rank, False, shape.tokens, shape.family)
    cost = cost_of_network(shape.at(math.isqrt(height * width)), None, *settings)
    guide = guide_of(synthesis.guidance, recipe.guidance_scale)
    seen = guide.evaluations(even_levels(recipe.begins, recipe.steps).tolist())
    flops = images * seen * cost.forward
    yield (
        f"generation   {images:,} images of {len(rows.prompts):,} prompts, {recipe.steps} steps of "
        f"{synthesis.solver}, guidance {recipe.guidance_scale:g}, {height} x {width} pixels"
    )
    yield time_line(config.resources, config.base, "generation", flops)
    held = network_bytes(config.base, cost, shape)
    rank = adapters.shape.rank
    numbers = sum(
        rank * (math.prod(layer.a[1:]) + layer.b[0]) for layer in adapters.layers.values()
    )
    kept = FLOAT_BYTES * len(adapters.files) * numbers / 1e6
    yield (
        f"memory       {held / 1e9:,.2f} GB of the network in {kept_as(config.base)} and "
        f"{kept:,.0f} MB of adapters, in each of {synthesis.actors} actors"
    )
    yield f"storage      {images * height * width * PNG_BYTES / 1e6:,.1f} MB of images"
