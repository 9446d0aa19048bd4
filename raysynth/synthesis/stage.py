"""The synthesis stage: plan -> images -> scores -> Parquet, streaming and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.adapters.record import maker_of, read_adapters
from raysynth.datasets.captions import read_captions
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DataError, StageError
from raysynth.generators.lending import settled
from raysynth.generators.recipe import Recipe, recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.models.settings import BaseConfigSection
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import open_storage, remove, remove_files, sizes_below
from raysynth.storage.hashes import note_hashes
from raysynth.storage.tables import read_table
from raysynth.synthesis import shards, timeline
from raysynth.synthesis.blocks import FOLDER as BLOCKS
from raysynth.synthesis.breeding import FOLDER as LINEAGES
from raysynth.synthesis.breeding import Breeders, breed, breeds_of
from raysynth.synthesis.captions import with_captions
from raysynth.synthesis.collect import Collector
from raysynth.synthesis.contrast import contrasts
from raysynth.synthesis.draw import SPECS_FOLDER, draw
from raysynth.synthesis.levels import settled_way
from raysynth.synthesis.pilots import coloured
from raysynth.synthesis.plan import Listed, Plan, Spoken, group_ranges
from raysynth.synthesis.rebalance import shares_of
from raysynth.synthesis.shards import (
    NOTES,
    plan_shards,
    read_manifest,
    shard_records,
    write_manifest,
)
from raysynth.synthesis.solver import check_solver
from raysynth.synthesis.sources import deal_sources
from raysynth.synthesis.specs import Asked, Voice, voices_of
from raysynth.synthesis.task import Task
from raysynth.synthesis.timeline import in_words, utilisation, write_timeline
from raysynth.synthesis.way import Way

NO_HASHES: Mapping[str, str] = {}
SCRATCH = (SPECS_FOLDER, BLOCKS, NOTES, LINEAGES, "checkpoint")  # the last: of versions before


def run_synthesis(
    config: Sections,
    real: str,
    adapters: str,
    clusters: str,
    groups: Groups,
    counts: Sequence[int] | np.ndarray,
    work: str,
    progress: Progress,
    hashes: Mapping[str, str] = NO_HASHES,
) -> dict[str, Any]:
    """Generate, score and write every candidate image.

    Leaves in `work` shards `group-<g>-<nnnnn>.parquet` of the synthetic table, each of one group
    with at most `synthesis.rows_per_shard` rows, timeline.feather (when each actor did what) and
    manifest.json, written last. Images that a cut-off attempt left on disk are not drawn again.

    Parameters
    ----------
    real, adapters, clusters : folders or URIs of real table, fine-tuning and clustering stage.
    counts : [G] training images per group.
    hashes : file below `adapters` -> SHA-256, of which images say those of their adapters.

    Returns facts: rows, groups {name: rows}, generated (in this attempt), resumed,
    images_per_second, start_seconds (until the first batch), utilisation (see `timeline`), levels
    (unless the solver's own), aims (of guidance: {term: each group's}), rebalance (see `breed`),
    colours (`coloured`).
    """

    def make() -> None:
        check_solver(config)
        recipe = settled(recipe_of(config), images := np.asarray(counts))
        _say(way := settled_way(config, recipe, real, groups, work), groups, progress)
        voices, task = _planned(config, recipe, real, adapters, clusters, groups, images, way)
        task = replace(task, maker=maker_of(config[BaseConfigSection], hashes))
        plan, more = _plan(config, voices, task, images, work, progress)
        task, more["colours"] = coloured(task, plan, real, work)
        generate(task, plan, work, progress, real, more)

    return filled(work, make)


def filled(work: str, make: Callable[[], None]) -> dict[str, Any]:
    """The facts of the synthetic table in `work`, which is made unless an attempt came to its end;
    what else lies there goes."""
    if _finished(work) is None:
        make()
    _clear(work)
    manifest = read_manifest(work)
    assert manifest is not None, "written by generate"
    return {"rows": manifest["rows"], **manifest["facts"]}


def _say(way: Way, groups: Groups, progress: Progress) -> None:
    """Where the steps are, unless that is the solver's own choice; which groups have no aims."""
    if way.levels is not None:
        above = "; above the first the Gaussians of the groups' images" if way.gaussians else ""
        shown = " ".join(f"{level:.3f}" for level in way.levels)
        progress.say(f"  noise levels: {shown}{above}")
    for name, aims in way.aims.items():
        if left := [groups.name(g) for g, count in enumerate(aims) if not count]:
            progress.say(f"  {name}: too few real images, images are not guided: {', '.join(left)}")


def _planned(
    config: Sections,
    recipe: Recipe,
    real: str,
    adapters: str,
    clusters: str,
    groups: Groups,
    counts: np.ndarray,
    way: Way,
) -> tuple[list[tuple[Voice, int]], Task]:
    """Who speaks for the groups, how often, and what the actors know."""
    trained = [] if recipe.training is None else read_adapters(adapters)
    voices = voices_of(Asked.of(config, recipe), trained, groups, counts)
    names = tuple(dict.fromkeys(name for v, count in voices if count for name in v.adapters))
    told = contrasts(config[PromptConfig], groups, counts) if recipe.masked else None
    many = sum(count for _, count in voices)
    known = {"contrasts": told, "recipe": recipe, "way": way, "images": many}
    task = Task.of(config, groups, adapters, names, clusters, **known)
    return _captioned(config, voices, task, real, counts)


def _captioned(
    config: Sections,
    voices: list[tuple[Voice, int]],
    task: Task,
    real: str,
    counts: np.ndarray,
) -> tuple[list[tuple[Voice, int]], Task]:
    """The voices with their groups' captions, and the task that reads these; both else as they are.

    `real`: folder of the real table; `counts`: [G] training images per group.
    """
    if not (captions := read_captions(config[DatasetConfig], real)):
        return voices, task
    clusters, recipe = task.scoring.clusters, task.drawing.recipe
    known = read_table(clusters, ["id", "group", "cluster"], [f"{clusters}/clusters.parquet"])
    said = with_captions(voices, config[PromptConfig], recipe, known, counts, captions)
    return said, replace(task, drawing=replace(task.drawing, captioned=True))


def _plan(
    config: Sections,
    voices: Sequence[tuple[Voice, int]],
    task: Task,
    counts: np.ndarray,
    work: str,
    progress: Progress,
) -> tuple[Plan, dict[str, Any]]:
    """The plan of all images; where these are bred, what it took to find them (`rebalance`)."""
    asked, groups = Asked.of(config, task.drawing.recipe), task.scoring.groups
    rebalance = asked.synthesis.rebalance
    if not rebalance.on:
        sources = _sources(config, asked.recipe, task.scoring.clusters, groups, counts)
        return Spoken(asked, groups, tuple(voices), sources, task.drawing.way.aims), {}
    shares = shares_of(counts, groups)
    breeds = breeds_of(rebalance, voices, groups, shares)
    with closing(Breeders(task, shares)) as look:
        specs, took = breed(look, task, asked, breeds, work, progress)
    told = (f"{name} {each['images_per_accepted']:.1f}" for name, each in took.items())
    progress.say(f"  images drawn per accepted one: {', '.join(told)}")
    return Listed(specs, groups), {"rebalance": took}


def _sources(
    config: Sections, recipe: Recipe, clusters: str, groups: Groups, counts: np.ndarray
) -> dict[int, list[str]] | None:
    """The real images that are edited for each group, see `plan.plan_specs`."""
    if not recipe.edits:
        return None
    members = read_table(clusters, ["id", "group"], [f"{clusters}/clusters.parquet"])
    return deal_sources(members, groups, counts, config.seed)


def _finished(work: str) -> dict[str, Any] | None:
    """The manifest of an attempt that came to its end.

    None where there is none, it cannot be read, or it lacks shards that are there: it is written
    again.
    """
    try:
        manifest = read_manifest(work)
    except DataError:
        return None
    named = {shard["file"] for shard in manifest["shards"]} if manifest else set()
    there = {name for name in sizes_below(work) if name.endswith(".parquet") and "/" not in name}
    return manifest if there <= named else None


def generate(
    task: Task,
    plan: Plan,
    work: str,
    progress: Progress,
    real: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Fill `work` with what is planned; raises StageError when some of it is missing.

    `real`: folder of the real table, where its images are edited. `more`: facts beside its own.
    """
    began = time.time()
    groups = task.scoring.groups
    planned = plan_shards(group_ranges(plan), task.drawing.synthesis.rows_per_shard)
    collector = Collector(work, planned, groups, progress)
    resumed, missing = collector.done, collector.missing
    with collector:
        if resumed < collector.total:
            draw(task, plan, missing, work, real, collector.take)
    records = collector.finish()
    if collector.waiting:
        shorts = ", ".join(shard.file for shard in collector.waiting[:3])
        raise StageError(
            f"synthesis: {collector.done} of {collector.total} images are on disk after the last "
            f"one was generated; {shorts} cannot be written. Fix: run again, it goes on from there"
        )
    write_timeline(spans := collector.timeline, work)
    told = {"levels": (way := task.drawing.way).levels, "aims": way.aims, **(more or {})}
    facts = {
        "groups": {name: _rows_of(records, g) for g, name in enumerate(groups.names)},
        "shards": len(records),
        "resumed": resumed,
        **_pace(spans, collector.total - resumed, began),
        **{name: value for name, value in told.items() if value},
    }
    write_manifest(work, records, facts)
    progress.say(f"  {_sentence(facts)}")


def _pace(spans: pa.Table, generated: int, began: float) -> dict[str, Any]:
    """Facts on how fast and how busy this attempt was."""
    first = pc.min(spans["start"]).as_py() if spans.num_rows else began
    return {
        "generated": generated,
        "images_per_second": round(generated / (time.time() - began), 1),
        "start_seconds": round(first - began, 1),
        "utilisation": utilisation(spans),
    }


def _sentence(facts: Mapping[str, Any]) -> str:
    """What the driver says at the end."""
    used = facts["utilisation"]
    if not facts["generated"] or not used["actors"]:
        return f"{facts['resumed']:,} images were there already"
    rate = facts["generated"] / max(used["seconds"], 1e-9)
    there = f", {facts['resumed']:,} were there already" if facts["resumed"] else ""
    return (
        f"{facts['generated']:,} images{there}; first batch after {facts['start_seconds']:.0f} s, "
        f"then {rate:.0f}/s; {in_words(used)}"
    )


def _rows_of(records: Sequence[Any], group: int) -> int:
    return sum(record.rows for record in records if record.group == group)


def _clear(work: str) -> None:
    """Leave only what the manifest names, and what a run notes in hidden files."""
    kept = {record.file for record in shard_records(work)}
    kept |= {shards.MANIFEST, shards.BEFORE, timeline.TIMELINE, timeline.BEFORE}
    gone = [name for name in sizes_below(work) if name not in kept and not name.startswith(".")]
    remove_files(work, gone)
    if open_storage(work)[0].is_disk:
        for name in SCRATCH:
            remove(f"{work}/{name}")  # emptied folders


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_synthesis`."""
    facts = run_synthesis(
        work.config,
        work.path("ingest"),
        work.path("finetune"),
        work.path("clustering"),
        work.groups,
        np.asarray(work.inputs["ingest"].facts["counts"]["train"]),
        work.folder,
        work.progress,
        work.inputs["finetune"].sha256,
    )
    note_shards(work.folder)
    return facts


def note_shards(work: str) -> None:
    """Leave word of the shards' hashes, so that they need not be read back."""
    known = {record.file: record.sha256 for record in shard_records(work)}
    note_hashes(work, {file: sha256 for file, sha256 in known.items() if sha256})
