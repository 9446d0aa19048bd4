"""`raysynth run --dry-run`: everything is checked, and each stage says what a run would do with it.

Nothing is written and no Ray is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysynth.cluster.settings import ResourcesConfig
from raysynth.config.config import Config
from raysynth.config.ground import RunConfig
from raysynth.datasets.listing import few_measured, split_counts
from raysynth.errors import ConfigError, DataError
from raysynth.method import FOLDERS
from raysynth.models.hub import pinned
from raysynth.models.settings import BaseConfigSection
from raysynth.pipeline import stage_digests
from raysynth.planning.minutes import in_words, of_work
from raysynth.planning.plan import TERAFLOPS
from raysynth.planning.preflight import (
    grouping_warnings,
    preflight,
    strange_lenders,
    warnings_of,
)
from raysynth.stages.course import Course
from raysynth.stages.record import read_manifest
from raysynth.stages.shelf import Shelf
from raysynth.storage.files import exists, misfits

NAMED = 20
"""Adapters that are listed; others are counted."""


@dataclass(frozen=True)
class Rehearsal:
    """What a run would do."""

    stages: Mapping[str, str]
    """Stage -> unchanged, goes on, again or new; with why."""
    warnings: list[str]


def rehearse(config: Config, until: str | None = None) -> Rehearsal:
    """Check a run as it would check itself, and compare its stages with what its folder holds.

    Raises
    ------
    ConfigError, DataError, ModelError
        What the run would refuse before Ray starts.
    """
    if until is not None and until not in FOLDERS:
        raise ConfigError(f"until: got {until!r}, expected one of {', '.join(FOLDERS)}")
    groups, listing = preflight(config)
    counts = split_counts(listing, groups)
    warnings = [
        *warnings_of(config),
        *grouping_warnings(config, groups),
        *strange_lenders(config, groups, counts["train"]),
        *few_measured(counts, groups),
    ]
    stages = stages_as(config.root, stage_digests(config, until), FOLDERS)
    return Rehearsal(stages, warnings)


def stages_as(root: str, digests: Mapping[str, str], folders: Mapping[str, str]) -> dict[str, str]:
    """Stage -> what a run would do with it, by what its folder holds.

    `digests`: of its stages now; `folders`: stage -> folder below `root`.
    """
    recorded, shelf = _recorded(root), Shelf(root, folders)
    return {name: _of(name, digest, recorded.get(name), shelf) for name, digest in digests.items()}


def stage_lines(course: Course, config: RunConfig) -> Iterator[str]:
    """Lines that say what a run of a command would do with each of its stages."""
    nodes = course.nodes(pinned(config, strict=False), None, course.contents)
    digests = {node.name: node.digest for node in nodes}
    for name, what in stages_as(config.root, digests, course.folders).items():
        yield f"{name:<12} {what}"


def time_line(resources: ResourcesConfig, base: BaseConfigSection, stage: str, flops: float) -> str:
    """How long a stage's FLOPs take here, or on GPUs where no CPU of this machine is meant."""
    found = of_work(resources, base, {stage: flops})
    if found is None:
        hours = flops / (TERAFLOPS * 1e12) / 3600
        return f"GPU-hours    {hours:,.2f} (at {TERAFLOPS:g} TFLOP/s sustained)"
    return f"time         {in_words(found.total)} ({found.basis})"


def _recorded(root: str) -> Mapping[str, Any]:
    try:
        found = read_manifest(root)
    except DataError:
        return {}
    return found["stages"] if found else {}


def _of(name: str, digest: str, record: Mapping[str, Any] | None, shelf: Shelf) -> str:
    if record is not None and record["digest"] == digest:
        faults = misfits(shelf.at(name, record), record.get("sizes") or {})
        if not faults:
            return "unchanged"
        return f"again: {faults[0]}"
    if exists(shelf.work(name, digest)):
        return "goes on where it was"
    if record is not None:
        return "again: settings, data or an earlier stage changed"
    return "new"


def in_lines(found: Rehearsal) -> list[str]:
    """A line for each stage, then the warnings."""
    width = max(map(len, found.stages))
    lines = [f"{name:<{width}}  {what}" for name, what in found.stages.items()]
    return [*lines, *(f"warning: {each}" for each in found.warnings)]
