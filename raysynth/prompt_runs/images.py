"""The second stage: every image that prompts ask for, by the engine of synthesis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raysynth.adapters.record import LoraShape, maker_of
from raysynth.clustering.settings import ClusteringConfig
from raysynth.groups.settings import PromptConfig
from raysynth.prompt_runs.adapters import Adapters, find_adapters
from raysynth.prompt_runs.card import write_card
from raysynth.prompt_runs.prompts import Prompts, adapters_of, read_prompts
from raysynth.prompt_runs.rows import Drawn, Rows
from raysynth.prompt_runs.settings import GenerateConfig
from raysynth.scoring.scorer import Scoring
from raysynth.stages.stage import Work
from raysynth.synthesis.guidance import NEGATIVE, guide_of
from raysynth.synthesis.stage import filled, generate, note_shards
from raysynth.synthesis.task import PAYS_FROM, Drawing, Task


def rows_of(config: GenerateConfig, prompts: Prompts, adapters: Adapters) -> Rows:
    """The plan of a run; raises DataError where a row names no adapter of it."""
    recipe = config.recipe
    drawn_with = adapters_of(prompts, tuple(adapters.files), adapters.given)
    used = {name for own in drawn_with for name in own}
    names = tuple(name for name in ("", *adapters.files) if name in used)
    negative = NEGATIVE in guide_of(config.synthesis.guidance, recipe.guidance_scale).rows
    told = (recipe.name, recipe.guidance_scale, recipe.steps, config.seed, negative)
    return Rows(names, prompts.rows, drawn_with, Drawn(*told))


def task_of(config: GenerateConfig, rows: Rows, stacked: str, shape: LoraShape) -> Task:
    """What actors are told; `stacked`: folder or URI of the adapters."""
    recipe, synthesis = config.recipe, config.synthesis
    names = tuple(name for name in rows.names if name)
    if not names:
        recipe = replace(recipe, training=None)
    images = int(rows.counts.sum())
    actors = min(synthesis.actors, -(-images // synthesis.batch_size))  # others would stay idle
    synthesis = synthesis.model_copy(update={"actors": actors})
    many = images >= PAYS_FROM * actors
    compiled = synthesis.compile is True or (synthesis.compile == "auto" and many)
    drawing = Drawing(config.base, synthesis, recipe, shape, compiled=compiled, size=config.size)
    sections = (config.base, ClusteringConfig(), PromptConfig())
    scoring = Scoring(*sections, rows.groups, "", stacked)
    return Task(drawing, scoring, names, config.resources)


def build(work: Work) -> dict[str, Any]:
    """Draw what is not there, then write the card; facts as `synthesis.stage.run_synthesis`."""
    config, stacked = work.config, work.path("adapters")
    assert isinstance(config, GenerateConfig)
    prompts = read_prompts(config)
    adapters = find_adapters(prompts.paths, numbers=False)
    rows = rows_of(config, prompts, adapters)
    sums = work.inputs["adapters"].facts["adapters"]
    task = task_of(config, rows, stacked, adapters.shape)
    task = replace(task, maker=replace(maker_of(config.base, {}), adapters=sums))
    facts = filled(work.folder, lambda: generate(task, rows, work.folder, work.progress))
    note_shards(work.folder)
    write_card(config, rows, facts, work.folder)
    return {**facts, "names": rows.groups.to_dict()}
