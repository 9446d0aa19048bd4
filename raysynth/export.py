"""Any trained method of a finished run as a folder with its card; nothing is trained, no Ray runs.

A run is named as `raysynth run` names it, and read by the configuration that it has written itself:
settings that were given and differ from that are refused, and so is a run that was started again
with other settings and has not got through. Weights come from the trainings that the stages keep.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysynth.classify.card import Origin
from raysynth.classify.ship import ship, units_of
from raysynth.classify.verdict import verdict_of
from raysynth.config.config import Config
from raysynth.config.files import read_config
from raysynth.errors import ConfigError
from raysynth.evaluation.kept import final_of
from raysynth.evaluation.results import Truth, read_truth
from raysynth.evaluation.shipping import candidates
from raysynth.groups.groups import Groups
from raysynth.knobs import digest_of
from raysynth.method import FOLDERS, nodes_of
from raysynth.networks.onnx import check_onnx
from raysynth.references.titles import title_of
from raysynth.stages.graph import Node
from raysynth.stages.record import MANIFEST, recorded_folder
from raysynth.storage import tables
from raysynth.storage.files import exists, read_json, read_record, sizes_below
from raysynth.terminal import clipped, masked, shown
from raysynth.training.units import Units

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


def export(
    config: Config, method: str, folder: str, seed: int | None = None, onnx: bool = False
) -> str:
    """Save a trained method's classifier to a new or empty folder or URI; says what was saved.

    Parameters
    ----------
    config : the run's, or its name and storage only.
    method : a row of the run's table that is trained: a reference, a mixture, or raysynth.
    seed : index of the training seed; None: the one of the best validation score.
    onnx : whether it is saved in ONNX too.

    Raises
    ------
    ConfigError
        No such method or seed, no finished run of these settings, a folder that is not empty, or no
        package that writes ONNX.
    DataError
        The training's weights are not there any more.
    """
    if onnx:
        check_onnx()
    if exists(folder) and sizes_below(folder):
        raise ConfigError(
            f"--to: {masked(folder)} is not empty; expected a new or empty folder. Fix: another one"
        )
    run = read_finished(config)
    row = _row(run.methods, method)
    seed = _seed(run.methods, method, seed)
    truth, units = _truth(run), _units(run, row["kind"])
    final = final_of(units.folder, method, row, seed)
    ship(
        units,
        Origin(run.config, truth.groups, truth.counts, run.methods, run.shipped, final),
        folder,
        onnx,
    )
    wga = row["validation"]["wga"]["seeds"][seed]
    return f"{title_of(method)}, seed {seed}, validation WGA {100 * wga:.1f} %: {masked(folder)}"


def _row(methods: Mapping[str, Mapping[str, Any]], method: str) -> Mapping[str, Any]:
    """The row of a trained method; ConfigError for others, with the nearest name."""
    known = candidates(methods)
    if method in known:
        return known[method].row
    told = f"expected one of {', '.join(known)}"
    if method in methods:
        raise ConfigError(
            f"METHOD: {method} is measured only, as controls are, and has no network to export; "
            f"{told}. Fix: one of these"
        )
    close = difflib.get_close_matches(method, known, 1)
    hint = f"Did you mean {close[0]!r}?" if close else "Fix: one of these"
    raise ConfigError(f"METHOD: got {clipped(shown(method))!r}, {told}. {hint}")


def _seed(methods: Mapping[str, Mapping[str, Any]], method: str, seed: int | None) -> int:
    """The seed that was asked for, or the one that validation likes best."""
    candidate = candidates(methods)[method]
    if seed is None:
        return candidate.best_seed
    if not 0 <= seed < len(candidate.wga):
        has = ", ".join(f"{i}: {100 * wga:.1f} %" for i, wga in enumerate(candidate.wga))
        raise ConfigError(
            f"--seed: got {seed}; {method} has seeds of validation WGA {has}. Fix: one of these"
        )
    return seed


def read_finished(config: Config) -> Finished:
    """The run of this name and storage, by the configuration that it wrote itself.

    Raises ConfigError where there is none, where settings that were given are not the run's, or
    where its classifiers are not finished, or were made with other settings.
    """
    root = config.root
    stages = _stages(root)
    own = read_config(f"{root}/config.yaml")
    _check_given(config, own)
    last = next(node for node in nodes_of(own) if node.name == LAST)
    references, real = last.upstream["references"], last.upstream["ingest"]
    for node in (*references.upstream.values(), references, last):
        _check_made(node, stages, root)
    folders = {
        name: f"{root}/{recorded_folder(node.name, stages[node.name], FOLDERS, shared=False)}"
        for name, node in (("ingest", real), ("references", references), (LAST, last))
    }
    if not exists(folders[LAST]):
        raise ConfigError(
            f"{masked(root)}: its stages are not below it, but where runs share theirs, as the "
            f"cells of a benchmark do. Fix: first run {masked(root)}/config.yaml by itself, with "
            "another storage_path"
        )
    facts = stages[real.name]["facts"]
    groups = Groups.from_dict(facts["groups"])
    counts = facts.get("counts", {}).get("validation", ())
    images = dict(zip(groups.names, counts, strict=False))
    results = read_record(f"{folders[LAST]}/results.json", "methods", kind=dict)
    return Finished(own, folders, groups, images, results)


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
    record = stages.get(node.name)
    if record is None:
        raise ConfigError(
            f"{masked(root)} has not finished the stage {node.name}; expected a run that is "
            "through its classification. Fix: start the run again, it goes on where it was"
        )
    inputs, digests = record["inputs"], {n: stages.get(r.name) for n, r in node.reads.items()}
    read = {name: found["digest"] for name, found in digests.items() if found}
    made = {key: inputs.get(key) for key in node.decided_by}
    whole = digest_of(made) == digest_of(dict(node.decided_by))
    if not whole or inputs.get("after", {}) != read:
        raise ConfigError(
            f"{masked(root)}: the stage {node.name} was made with other settings than the run now "
            "has: it was started again and has not got through. Fix: start it again to its end"
        )


def _truth(run: Finished) -> Truth:
    """What is true of the test images; no pixel is read."""
    real = run.folders["ingest"]
    train = tables.read_table(real, ["group"], tables.split_files(real, "train"))["group"]
    counts = np.bincount(train.to_numpy(), minlength=run.groups.count)
    return read_truth(real, counts, run.groups)


def _units(run: Finished, kind: str) -> Units:
    """The trainings of a kind's methods, to be loaded on this machine's CPU."""
    size = run.config.classifier.image_size or tables.stored_side(run.folders["ingest"])
    where = (run.folders["references"], run.folders[LAST])
    units = units_of(kind, run.config, *where, run.groups, size)
    base = units.blueprint.base.model_copy(update={"device": "cpu"})
    return replace(units, blueprint=replace(units.blueprint, base=base))
