"""What a benchmark computes: a run for every row, severity and seed, checked before any starts."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from raysynth.config.benchmark import BenchmarkConfig
from raysynth.config.config import Config
from raysynth.config.files import explain
from raysynth.config.storage import check_apart
from raysynth.errors import ConfigError
from raysynth.knobs import Section
from raysynth.models.hub import pinned
from raysynth.pipeline import stage_digests
from raysynth.planning.preflight import preflight
from raysynth.references.settings import CONTROLS, REAL_ONLY
from raysynth.stages.record import shared_name
from raysynth.terminal import clipped, shown

LAST_STAGE = "classification"
SECTIONS = frozenset(name for name, value in Config() if isinstance(value, Section))
NOT_OF_ROWS = {
    "seed": "all rows have the same seeds: set `seed` and `benchmark.seeds`",
    "dataset.severity": "all rows have the same severities: set `benchmark.severities`",
    "name": "the row's name is its cells': rename the row",
    "storage_path": "cells share their stages below one folder: set it beside `benchmark`",
    "resources.address": "all cells run on one Ray: set it beside `benchmark`",
    "benchmark": "a row is one run: set it beside `rows`",
}
"""Keys that rows cannot change, and what to do instead."""


@dataclass(frozen=True)
class Cell:
    """One run of the benchmark."""

    row: str
    severity: float | str
    seed: int
    config: Config
    stages: dict[str, str]
    """Stage -> digest; a generator's variant of a stage is `<stage>/<generator>`."""
    read: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Digests of data sets' folders, read once for all cells of a plan."""

    @property
    def name(self) -> str:
        """Folder of the run, below the benchmark's."""
        return f"{self.row}-{self.severity}-{self.seed}"

    @property
    def folders(self) -> frozenset[str]:
        """Names of the stages' folders; cells share the stages of equal name."""
        return frozenset(shared_name(name, digest) for name, digest in self.stages.items())

    @property
    def digest(self) -> str:
        """Of everything that the cell's numbers come from."""
        return self.stages[LAST_STAGE]

    @property
    def references(self) -> str:
        """Name of the folder of its references and controls."""
        return shared_name("references", self.stages["references"])

    @cached_property
    def without_references(self) -> Cell:
        """The same run without references and controls: its own classifiers are the same."""
        none = {"names": (), "controls": ()}
        references = self.config.references.model_copy(update=none)
        config = self.config.model_copy(update={"references": references})
        return replace(self, config=config, stages=stage_digests(config, LAST_STAGE, self.read))


def plan_cells(config: Config) -> list[Cell]:
    """The cells, row by row within a severity and seed, so that shared work is met early.

    Raises
    ------
    ConfigError
        `benchmark.rows` is empty, a row has the name of a reference or control, or settings that
        are no row's or no configuration, the baseline is no row, or `benchmark.only_at` names
        what is no row or severity.
    """
    settings = config.benchmark
    severities = settings.severities or (config.dataset.severity,)
    _check_names(settings)
    _check_places(settings, severities)
    cells = []
    read: dict[str, str] = {}
    for severity in severities:
        for seed in range(config.seed, config.seed + settings.seeds):
            for row, changes in settings.rows.items():
                if severity not in settings.only_at.get(row, severities):
                    continue
                where = {"seed": seed, "dataset.severity": severity}
                changed = _changed(config, row, where | _settings_of(row, changes))
                cell = pinned(changed, strict=False)  # one commit for all cells
                stages = stage_digests(cell, LAST_STAGE, read)
                cells.append(Cell(row, severity, seed, cell, stages, read))
    return cells


def _check_names(settings: BenchmarkConfig) -> None:
    if not settings.rows:
        raise ConfigError(
            "benchmark.rows is empty; expected at least one row, e.g. {vanilla: {generator: "
            "vanilla}}. Fix: take configs/benchmarks/outfits.yaml as a start"
        )
    if settings.baseline and settings.baseline not in settings.rows:
        raise ConfigError(
            f"benchmark.baseline is {_told(settings.baseline)!r}; expected one of the rows "
            f"({_told(', '.join(settings.rows))}), or nothing. Fix: correct the name"
        )
    for name, among in settings.by_validation.items():
        if unknown := set(among) - set(settings.rows):
            raise ConfigError(
                f"benchmark.by_validation.{name} names {_told(min(unknown))!r}; expected rows "
                f"({_told(', '.join(settings.rows))}). Fix: correct the name"
            )
        if name in settings.rows:
            raise ConfigError(
                f"benchmark.by_validation.{name} is the name of a row too; expected one that no "
                f"row has. Fix: call it otherwise, e.g. {name}-by-validation"
            )
    names = {*settings.rows, *settings.by_validation}
    if taken := [name for name in names if name in REAL_ONLY or name in CONTROLS]:
        name = min(taken)
        where = "rows" if name in settings.rows else "by_validation"
        raise ConfigError(
            f"benchmark.{where}: {name!r} is the name of a reference or control, which has a row "
            f"of its own in the table. Fix: call the row otherwise, e.g. {name}-ours"
        )


def _check_places(settings: BenchmarkConfig, severities: Sequence[float | str]) -> None:
    for row, own in settings.only_at.items():
        if row not in settings.rows:
            raise ConfigError(
                f"benchmark.only_at names {_told(row)!r}; expected rows "
                f"({_told(', '.join(settings.rows))}). Fix: correct the name"
            )
        if strange := [each for each in own if each not in severities]:
            raise ConfigError(
                f"benchmark.only_at.{row}: {strange[0]}; expected some of the severities "
                f"({', '.join(map(str, severities))}). Fix: correct it, or add it to "
                "`benchmark.severities`"
            )


def _told(text: str) -> str:
    """A text as a message shows it."""
    return clipped(shown(text))


def check_cells(cells: list[Cell]) -> None:
    """Refuse what cannot run before Ray is started, once for every distinct ingest and row."""
    seen = set()
    for cell in cells:
        what = (cell.row, cell.severity)
        if what not in seen:
            seen.add(what)
            try:
                preflight(cell.config)
            except ConfigError as error:
                raise ConfigError(f"benchmark row {cell.row!r}: {error}") from None


def _settings_of(row: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A row's settings as `section.key: value`; ConfigError for those that are not a row's."""
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        if key in SECTIONS and isinstance(value, dict):
            flat |= {f"{key}.{inner}": setting for inner, setting in value.items()}
        else:
            flat[key] = value
    for key in flat:
        for refused, instead in NOT_OF_ROWS.items():
            if key == refused or key.startswith(f"{refused}."):
                raise ConfigError(
                    f"benchmark row {row!r}: {_told(key)} cannot differ between rows. Fix: leave "
                    f"it out; {instead}"
                )
    return flat


def _changed(config: Config, row: str, changes: dict[str, Any]) -> Config:
    """The benchmark's configuration with a row's settings; `section.key: value`."""
    values = config.model_dump(exclude={"benchmark"}, exclude_unset=True)
    # A table says what becomes of every row: none is stopped, unless it is asked for.
    values.setdefault("selection", {}).setdefault("on_unfaithful", "go_on")
    for key, value in changes.items():
        inner = values
        *sections, last = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"benchmark row {row!r}: {_told(key)}: {_told(section)} is a value "
                    f"({_told(repr(inner))}), not a section. Fix: give its value itself, or "
                    "correct the key"
                )
        inner[last] = deepcopy(value)  # a later key of the row may change it
    try:
        changed = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, f"benchmark row {row!r}")) from None
    check_apart(changed)
    return changed
