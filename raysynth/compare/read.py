"""What is compared of a run, read from its folder: results, times, what was kept, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from raysynth.datasets.settings import LAYOUTS
from raysynth.errors import ConfigError, DataError
from raysynth.evaluation.kinds import OURS
from raysynth.jobs.cells import CELLS, RUNS
from raysynth.jobs.heartbeat import STATUS
from raysynth.jobs.status import Status, read_status
from raysynth.method import FOLDERS
from raysynth.stages.graph import stage_kind
from raysynth.stages.record import SHARED, read_manifest, real_stage
from raysynth.stages.run import CONFIG
from raysynth.stages.shelf import Shelf
from raysynth.storage.files import exists, open_storage, read_json
from raysynth.terminal import masked, shown

PLACES = ("name", "storage_path")
"""Settings that say where a run is, and differ in any two."""


@dataclass(frozen=True)
class Known:
    """A run, finished or not."""

    root: str
    status: Status
    settings: Mapping[str, Any]
    """Its configuration, flat: `search.trials` -> 12."""
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.root.rstrip("/").rpartition("/")[2]

    @property
    def stages(self) -> Mapping[str, Any]:
        """Records of its finished stages."""
        return dict(self.manifest.get("stages", {}))

    def place(self, stage: str) -> str:
        """Folder or URI of a finished stage, "" where it is not there."""
        if stage not in self.stages:
            return ""
        shelf = Shelf(self.root, FOLDERS, self.manifest.get(SHARED))
        return shelf.at(stage, self.stages[stage])

    @property
    def real(self) -> str:
        """Where the table of photographs lies, in the run's groups; "" where there is none."""
        return self.place(real_stage(self.stages))

    @cached_property
    def results(self) -> dict[str, Any]:
        """The report's results.json; of a run without one, what its classification wrote."""
        for stage in ("report", "classification"):
            place = self.place(stage)
            found = read_json(f"{place}/results.json") if place else None
            if isinstance(found, dict):
                return found
        return {}

    @property
    def methods(self) -> dict[str, Any]:
        """Name -> what was measured of a method on test."""
        return dict(self.results.get("methods", {}))

    @property
    def shipped(self) -> str:
        """The method whose classifier it ships; "" before it does."""
        found = self.results.get("shipped") or {}
        return str(found.get("name") or (OURS if OURS in self.methods else ""))

    def accuracy(self, method: str, key: str) -> Mapping[str, Any] | None:
        """`mean`, `std` and `seeds` of `wga` or `aga` on test; None: not measured."""
        found = self.methods.get(method, {}).get(key)
        return found if isinstance(found, dict) and found.get("mean") is not None else None

    @property
    def data(self) -> str:
        """The data set by its name, one's own by its folder's."""
        if named := self.results.get("data"):
            return str(named)
        path = str(self.settings.get("dataset.path") or "").rstrip("/").rpartition("/")[2]
        name = str(self.results.get("dataset") or self.settings.get("dataset.name", ""))
        return path if path and name in LAYOUTS and LAYOUTS[name].is_anybodys else name

    @property
    def severity(self) -> str:
        """Of the data set."""
        return str(self.results.get("severity") or self.settings.get("dataset.severity", ""))

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds, variants of several generators added up."""
        found: dict[str, float] = {}
        for name, record in self.stages.items():
            kind = stage_kind(name)
            found[kind] = found.get(kind, 0.0) + float(record["seconds"])
        return found

    def facts(self, stage: str) -> Mapping[str, Any]:
        """What a finished stage says of itself."""
        return dict(self.stages.get(stage, {}).get("facts", {}))


def known(root: str) -> Known:
    """What a run's folder or URI says.

    Raises
    ------
    ConfigError
        There is no run.
    DataError
        Its manifest or its configuration cannot be read.
    """
    status = read_status(root)
    manifest = read_manifest(root) or {"stages": {}}
    return Known(root, status, _settings(root), manifest)


def _settings(root: str) -> dict[str, Any]:
    if not exists(f"{root}/{CONFIG}"):
        return {}
    storage, path = open_storage(f"{root}/{CONFIG}")
    try:
        found = yaml.safe_load(storage.cat_file(path))
    except yaml.YAMLError as error:
        raise DataError(
            f"{masked(root)}/{CONFIG}: no YAML ({str(error).splitlines()[0]}). Fix: run it again "
            "with its settings, which writes it"
        ) from None
    return dict(flat(found)) if isinstance(found, dict) else {}


def flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """(`section.key`, value) of nested settings; lists and empty mappings are values."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        found += flat(value, name) if isinstance(value, dict) and value else [(name, value)]
    return found


def runs_below(folder: str) -> list[Known]:
    """The runs of `seen_at`."""
    return seen_at(folder)[0]


def seen_at(folder: str) -> tuple[list[Known], list[Status]]:
    """All runs right below a folder or URI, the one that gave a sign of life last in front.

    Of a benchmark's folder: its cells. And the benchmarks that the folder, or one right below it,
    is; without a status file one is not found.

    Raises
    ------
    ConfigError
        There is no such folder, or no run in it.
    """
    names, root = _below(folder), folder.rstrip("/")
    is_run = {name: exists(f"{root}/{name}/{CONFIG}") for name in names if name != CONFIG}
    others = [root] if CONFIG not in names and STATUS in names else []
    others += [f"{root}/{name}" for name, run in is_run.items() if not run]
    benchmarks = [read_status(each) for each in others if exists(f"{each}/{STATUS}")]
    benchmarks = [status for status in benchmarks if CELLS in status.record]
    found = [known(f"{root}/{name}") for name, run in is_run.items() if run]
    if not found and RUNS in names:
        return runs_below(f"{root}/{RUNS}"), benchmarks
    if not found:
        raise ConfigError(
            f"{shown(masked(folder))}: no run below it; expected folders with {CONFIG}. Fix: name "
            f"a `storage_path`{_instead(benchmarks)}"
        )
    ages = {run.root: 1e12 if run.status.age is None else run.status.age for run in found}
    return sorted(found, key=lambda run: ages[run.root]), benchmarks


def _below(folder: str) -> list[str]:
    """Names right below a folder or URI; ConfigError where there is none."""
    storage, path = open_storage(folder)
    storage.invalidate_cache()
    if not storage.exists(path):
        raise ConfigError(
            f"{shown(masked(folder))}: no such folder. Fix: name one that has runs in it, a "
            "`storage_path`"
        )
    return sorted(str(each).rstrip("/").rpartition("/")[2] for each in storage.ls(path, False))


def _instead(benchmarks: Sequence[Status]) -> str:
    names = ", ".join(shown(masked(each.root)) for each in benchmarks)
    return f", or a benchmark's folder ({names})" if names else ""


def differences(runs: Sequence[Known]) -> list[tuple[str, list[Any]]]:
    """(setting, its value in every run) of those that are not the same everywhere."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in PLACES)
    rows = [(key, [run.settings.get(key) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values)]


def methods_of(runs: Sequence[Known]) -> list[str]:
    """All methods, in the order in which the runs have them; ours last."""
    names = dict.fromkeys(name for run in runs for name in run.methods)
    return sorted(names, key=lambda name: name == OURS)


def groups_of(runs: Sequence[Known]) -> list[str]:
    """Names of all groups that were measured."""
    return list(
        dict.fromkeys(
            group
            for run in runs
            for method in run.methods.values()
            for group in method.get("groups", {})
        )
    )
