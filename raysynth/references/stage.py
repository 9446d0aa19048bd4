"""The references stage: real-only references tuned and measured on test once, and control rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.clustering.settings import ClusteringConfig
from raysynth.evaluation.curves import tell_curves
from raysynth.evaluation.final import Final, predict_test
from raysynth.evaluation.results import (
    SELECTION_RULE,
    Truth,
    measured,
    predictions,
    read_truth,
    trained,
    write_results,
)
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.networks.build import Blueprint, blueprint_of
from raysynth.networks.images import Data
from raysynth.networks.settings import ClassifierConfig
from raysynth.progress import Progress
from raysynth.references.checks import check_halves
from raysynth.references.control import CONTROLS
from raysynth.references.reference import REFERENCES
from raysynth.references.settings import ReferencesConfig
from raysynth.references.tuning import Tuning, tuning_of
from raysynth.stages.stage import Work
from raysynth.storage.files import make_folder
from raysynth.trackers.several import SILENT, Trackers
from raysynth.training.data import load_real_data
from raysynth.training.units import Records, Units, run_units, start_workers

Named = tuple[str, int, Any]
"""(method, seed, predicted labels [M] of the test images)."""


def run_references(
    config: Sections,
    real: str,
    groups: Groups,
    work: str,
    progress: Progress,
    tracker: Trackers = SILENT,
) -> dict[str, Any]:
    """Tune and train the references, fit the controls, measure all on test.

    `real`: folder or URI of the ingest stage. Writes results.json, predictions.parquet and units/
    below `work`; units that are there are not trained again. Raises as `run_units` and
    `check_halves` do.

    Returns
    -------
    `rows` (classifiers measured), `methods` ({name: mean test WGA}), `training_seconds`.
    """
    settings = config[ReferencesConfig].settled(config[ClassifierConfig])
    progress.update("decoding images")
    ready = start_workers(config[ResourcesConfig])
    data = load_real_data(config[ClassifierConfig].image_size, real, groups)
    check_halves(settings.names, data.validation.counts(groups.count), groups)
    units = reference_units(config, work, groups, data.train.size)
    make_folder(units.folder)
    tuning = tuning_of(settings.names, settings, settings.seeds)
    ray.get(ready)
    records = _tuned(tuning, units, data, progress)
    finals, tried = tuning.finals(records)
    tell_curves(tracker, "references", finals)
    progress.update("test, once", 0, len(finals))
    found = predict_test(units, finals, real)
    truth = read_truth(real, data.train.counts(groups.count), groups)
    methods, named = reference_rows(finals, found, truth, settings)
    for name, (row, predicted) in _controls(config, real, groups, truth, progress).items():
        methods[name] = row
        named.append((name, 0, predicted))
    report = {"selection_rule": SELECTION_RULE, "methods": methods, "tuning": tried}
    write_results(work, report, predictions(truth, named))
    return _facts(methods, len(named), records)


def _facts(methods: dict[str, Any], rows: int, records: Records) -> dict[str, Any]:
    return {
        "rows": rows,
        "methods": {name: values["wga"]["mean"] for name, values in methods.items()},
        "training_seconds": round(sum(record["seconds"] for record in records.values()), 1),
    }


def _tuned(tuning: Tuning, units: Units, data: Data, progress: Progress) -> Records:
    """The records of all trainings."""
    told, reached = "settings and seeds", tuning.reached
    shared, further = ray.put(data), tuning.further
    return run_units(units, tuning.first, shared, progress, told, further, reached=reached)


def reference_rows(
    finals: Sequence[Final], found: Sequence[Any], truth: Truth, config: ReferencesConfig
) -> tuple[dict[str, Any], list[Named]]:
    """The rows of references or mixtures by name, and their predictions."""
    methods: dict[str, Any] = {}
    named = [(final.method, final.seed, one) for final, one in zip(finals, found, strict=True)]
    for name in dict.fromkeys(final.method for final in finals):
        reference = REFERENCES[name]
        mine = [final for final in finals if final.method == name]
        seen = [one for method, _, one in named if method == name]
        methods[name] = {
            "kind": reference.kind,
            "source": reference.source,
            "uses_validation": reference.uses_validation,
            "budget": reference.budget(config),
            **measured(truth, seen, [final.validation for final in mine]),
            **trained(mine),
        }
    return methods, named


def reference_units(config: Sections, work: str, groups: Groups, size: int) -> Units:
    """The references' trainings, below the stage's folder; `size`: side of the images, pixels."""
    resources = config[ResourcesConfig]
    return Units(f"{work}/units", _blueprint(config), resources, groups, size)


def _blueprint(config: Sections) -> Blueprint:
    """What the references' networks are made from: with a start of their own."""
    classifier = config[ReferencesConfig].network(config[ClassifierConfig])
    return replace(blueprint_of(config), classifier=classifier)


def _controls(
    config: Sections, real: str, groups: Groups, truth: Truth, progress: Progress
) -> dict[str, tuple[dict[str, Any], Any]]:
    """The control rows and their test predictions, side by side on the workers."""
    from raysynth.references.control_row import run_control

    settings, resources = config[ReferencesConfig], config[ResourcesConfig]
    blueprint, batch = _blueprint(config), config[ClusteringConfig].batch_size
    task = on_worker(run_control, resources)
    fixed = (settings.head_weight_decays, real, groups, batch, resources.cpus_per_worker)
    if settings.controls:
        progress.update("controls", 0, len(settings.controls))
    results = ray.get([task.remote(name, blueprint, *fixed) for name in settings.controls])
    rows: dict[str, tuple[dict[str, Any], Any]] = {}
    for name, result in zip(settings.controls, results, strict=True):
        row = {
            "kind": "control",
            "source": CONTROLS[name].source,
            "uses_validation": False,
            "budget": CONTROLS[name].budget(settings),
            **measured(truth, [np.asarray(result["predicted"])], [result["validation"]]),
            "chosen": result["chosen"],
        }
        rows[name] = (row, result["predicted"])
    return rows


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_references`."""
    real = work.path("ingest")
    return run_references(work.config, real, work.groups, work.folder, work.progress, work.tracker)
