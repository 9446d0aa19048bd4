"""A finished run, or some of its stages, by the configuration that it has written itself.

A run is named as `raysynth run` names it, or by its folder: settings that were given and differ
from the run's own are refused, and so is a run that was started again with other settings and has
not got through. Nothing is made, and no Ray runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysynth.classify.verdict import verdict_of
from raysynth.config.config import Config
from raysynth.config.files import read_config
from raysynth.errors import ConfigError
from raysynth.groups.groups import Groups
from raysynth.knobs import digest_of
from raysynth.method import FOLDERS, nodes_of
from raysynth.stages.graph import Node, stage_kind
from raysynth.stages.record import MANIFEST, recorded_folder
from raysynth.stages.run import CONFIG
from raysynth.storage.files import exists, read_json, read_record, sizes_below
from raysynth.terminal import clipped, masked

LAST = "classification"
APART = {"name", "storage_path", "resources", "benchmark", "trackers"}
"""Sections that change where a run is and how wide, not what it makes."""


@dataclass(frozen=True)
class Finished:
    """A run of which all classifiers are there: its configuration, folders and results."""

    config: Config
    folders: Mapping[str, str]
    groups: Groups
    images: Mapping[str, int]
    """Validation images per group."""
    results: Mapping[str, Any]

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows of results.json."""
        found: Mapping[str, Mapping[str, Any]] = self.results["methods"]
        return found

    @property
    def shipped(self) -> dict[str, Any]:
        """What it ships, with words."""
        found = verdict_of(self.results, self.images)
        assert found is not None  # every version has raysynth's own row
        return found


def read_finished(config: Config) -> Finished:
    """The run of this name and storage, by the configuration that it wrote itself.

    Raises ConfigError where there is none, where settings that were given are not the run's, or
    where its classifiers are not finished, or were made with other settings.
    """
    made = read_made(config, LAST, ("ingest", "references", LAST))
    counts = made.records["ingest"]["facts"].get("counts", {}).get("validation", ())
    images = dict(zip(made.groups.names, counts, strict=False))
    results = read_record(f"{made.folders[LAST]}/results.json", "methods", kind=dict)
    return Finished(made.config, made.folders, made.groups, images, results)


@dataclass(frozen=True)
class Made:
    """Some finished stages of a run: its own configuration, their folders and records, by name."""

    config: Config
    folders: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]

    @property
    def groups(self) -> Groups:
        """The run's."""
        return Groups.from_dict(self.records["ingest"]["facts"]["groups"])


def read_made(config: Config, last: str, kinds: Sequence[str]) -> Made:
    """Stages of the run of this name and storage, all that they were made of being finished too.

    `kinds`: those that are asked for, of every generator, of `last` and what it was made of. Raises
    ConfigError as `read_finished`.
    """
    root = config.root
    stages = _stages(root)
    own = read_config(f"{root}/{CONFIG}")
    _check_given(config, own)
    node = next(node for node in nodes_of(own) if node.name == last)
    known = node.upstream | {last: node}
    # A grouping method's stage stands for the one whose table it writes anew.
    asked = {
        each.stage.stands_for or name: each
        for name, each in known.items()
        if each.stage.name in kinds or each.stage.stands_for in kinds
    }
    for each in asked.values():
        for one in (*each.upstream.values(), each):
            _check_made(one, stages, root)
    found = {name: _record_of(each, stages) for name, each in asked.items()}
    records = {name: record for name, record in found.items() if record}
    folders = {
        name: f"{root}/{recorded_folder(asked[name].name, record, FOLDERS, shared=False)}"
        for name, record in records.items()
    }
    if not all(exists(folder) for folder in folders.values()):
        raise ConfigError(
            f"{masked(root)}: its stages are not below it, but where runs share theirs, as the "
            f"cells of a benchmark do. Fix: first run {masked(root)}/{CONFIG} by itself, with "
            "another storage_path"
        )
    return Made(own, folders, records)


def require_empty(folder: str) -> None:
    """Raise ConfigError where there is something in the folder or URI that an export is to make."""
    if exists(folder) and sizes_below(folder):
        raise ConfigError(
            f"--to: {masked(folder)} is not empty; expected a new or empty folder. Fix: another one"
        )


def _stages(root: str) -> dict[str, Any]:
    """Stage -> its record, of the run's manifest."""
    manifest = read_json(f"{root}/{MANIFEST}")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
        raise ConfigError(
            f"{masked(root)}: no run is there. Fix: name=<run's name> storage_path=<its place>, or "
            "the configuration that it was run with"
        )
    return dict(manifest["stages"])


def _check_given(given: Config, own: Config) -> None:
    """Refuse settings that were given and are not the run's; what was not given is the run's."""
    asked = given.model_dump(mode="json", exclude_unset=True, exclude=APART)
    different = dict(_differences(asked, own.model_dump(mode="json")))
    if different:
        told = ", ".join(f"{key}={clipped(str(value))}" for key, value in different.items())
        raise ConfigError(
            f"the run {own.name} was made with {masked(told)}; expected the settings that were "
            "given. Fix: leave them out (a run's name and storage_path are enough), or run it first"
        )


def _differences(asked: Any, own: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(`section.key`, the run's value) where the values that were asked for are others.

    Revisions are left out: a run writes the commit that a branch was.
    """
    if isinstance(asked, dict) and isinstance(own, dict):
        for name, value in asked.items():
            if not name.endswith("revision"):
                yield from _differences(value, own.get(name), f"{key}.{name}".lstrip("."))
    elif asked != own:
        yield key, own


def _check_made(node: Node, stages: Mapping[str, Any], root: str) -> None:
    """Refuse a stage that is not finished, or not of the configuration and of what it now reads."""
    record = _record_of(node, stages)
    if record is None:
        raise ConfigError(
            f"{masked(root)} has not finished the stage {node.name}; expected a run that is "
            "through it. Fix: start the run again, it goes on where it was"
        )
    inputs, beside = record["inputs"], node.stage.beside
    found = {name: _record_of(read, stages) for name, read in node.reads.items()}
    digests = {name: each["digest"] for name, each in found.items() if each}
    apart = {key: digests.pop(name, None) for key, name in beside.items()}
    as_read = {key: inputs.get(key) for key in beside} == apart
    if not (_is_decided(node, record) and as_read and inputs.get("after", {}) == digests):
        raise ConfigError(
            f"{masked(root)}: the stage {node.name} was made with other settings than the run now "
            "has: it was started again and has not got through. Fix: start it again to its end"
        )


def _record_of(node: Node, stages: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A stage's record: of equal stages of two generators one alone is made."""
    if found := stages.get(node.name):
        return dict(found)
    kind = (each for name, each in stages.items() if stage_kind(name) == node.stage.name)
    return next((dict(each) for each in kind if _is_decided(node, each)), None)


def _is_decided(node: Node, record: Mapping[str, Any]) -> bool:
    made = {key: record["inputs"].get(key) for key in node.decided_by}
    return digest_of(made) == digest_of(dict(node.decided_by))
