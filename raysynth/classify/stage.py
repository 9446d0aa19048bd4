"""The classification stage: references tuned, the search's winner refitted, test touched once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import fsspec
import ray

from raysynth.classify.data import load_data, say_shortage
from raysynth.classify.final import Final, final_report, measure_and_ship
from raysynth.classify.metrics import GroupMetrics
from raysynth.classify.recipe import plan_of
from raysynth.classify.references import REFERENCES
from raysynth.classify.references.reference import merged
from raysynth.classify.training import Plan, encode_frozen
from raysynth.classify.units import Records, run_units, start_workers
from raysynth.config import Config
from raysynth.groups import Groups
from raysynth.progress import Progress
from raysynth.runs import write_atomic

OURS = "raysynth"
Tuning = Sequence[tuple[str, float, Plan]]
"""(reference, weight decay, plan), all at the first seed."""


def run_classification(
    config: Config,
    real: str,
    synthetic: str,
    selection: str,
    search: str,
    groups: Groups,
    work: str,
    progress: Progress,
) -> dict[str, Any]:
    """Tune the references, train all final classifiers, measure them on test, ship the winner.

    `real`, `synthetic`, `selection`, `search`: folders or URIs of those stages. Writes
    results.json, model/ (a save_pretrained folder) and units/ below `work`; units that are there
    are not trained again.

    Returns
    -------
    `rows` (final classifiers measured), `methods` ({name: mean test WGA}), `seconds` of training.

    Raises
    ------
    StageError
        Naming the trainings that failed.
    """
    progress.update("decoding images")
    ready = start_workers(config)
    data = load_data(config, real, synthetic, selection, groups)
    best = _read_best(search)
    say_shortage(best["parameters"]["ratio"], data, progress)
    shared, folder = ray.put(data), f"{work}/units"
    fsspec.core.url_to_fs(folder)[0].makedirs(fsspec.core.url_to_fs(folder)[1], exist_ok=True)

    ray.get(ready)
    seeds = range(config.classifier.seeds)
    ours = [plan_of(best["parameters"], config.classifier, seed) for seed in seeds]
    tuning = _tuning_plans(config)
    # The winner's seeds wait for nothing: trained beside the tuning, no worker stands idle.
    records = run_units(
        merged([plan for _, _, plan in tuning]) + ours,
        shared,
        config,
        folder,
        progress,
        "references tuned, final seeds",
        then=lambda records: merged(_further_seeds(tuning, records, seeds)),
        frozen=_frozen_features(ours[0], shared, config),
    )
    chosen, tried = choose(tuning, records)

    finals = [
        Final(name, record_of(replace(plan, seed=seed), records), head)
        for name, (plan, head) in chosen.items()
        for seed in seeds
    ]
    finals += [Final(OURS, records[p], p.heads[0].name) for p in ours]
    progress.update("test, once", 0, len(finals))
    # Workers hold torch already, and may have a GPU: the driver needs neither.
    task = ray.remote(
        num_cpus=config.resources.cpus_per_worker, num_gpus=config.resources.gpus_per_worker
    )(measure_and_ship)
    measured = ray.get(
        task.remote(finals, config, real, data.train.size, groups, folder, work, OURS)
    )
    report = final_report(finals, measured, tried, best)
    write_atomic(f"{work}/results.json", json.dumps(report, indent=1).encode())
    return {
        "rows": len(finals),
        "methods": {name: values["wga"]["mean"] for name, values in report["methods"].items()},
        "training_seconds": round(sum(record["seconds"] for record in records.values()), 1),
    }


def _further_seeds(tuning: Tuning, records: Records, seeds: range) -> list[Plan]:
    """The other seeds of every reference of which all settings have been tried."""
    trained = {replace(plan, heads=()) for plan in records}
    missing = {name for name, _, plan in tuning if replace(plan, heads=()) not in trained}
    chosen, _ = choose([entry for entry in tuning if entry[0] not in missing], records)
    return [replace(plan, seed=seed) for plan, _ in chosen.values() for seed in seeds if seed]


def _frozen_features(plan: Plan, data: Any, config: Config) -> Any:
    """Reference to the features that the seeds of a plan of no steps share; None for others."""
    if plan.steps > 0:
        return None
    resources = config.resources
    return ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(
        encode_frozen
    ).remote(plan, data, config)


def choose(
    tuning: Tuning, records: Records
) -> tuple[dict[str, tuple[Plan, str]], list[dict[str, Any]]]:
    """Per reference the plan and head of the best validation score; and all that was tried."""
    tried = []
    top: dict[str, tuple[float, Plan, str]] = {}
    for name, weight_decay, plan in tuning:
        record = record_of(plan, records)
        for spec in plan.heads:
            found = record["best"][spec.name]
            metrics = GroupMetrics.from_dict(found["validation"])
            tried.append(
                {
                    "reference": name,
                    "weight_decay": weight_decay,
                    "head": spec.name,
                    "step": found["step"],
                    "validation_wga": metrics.wga,
                    "validation_aga": metrics.aga,
                }
            )
            if name not in top or metrics.score > top[name][0]:
                top[name] = (metrics.score, plan, spec.name)
    return {name: (plan, head) for name, (_, plan, head) in top.items()}, tried


def _tuning_plans(config: Config) -> Tuning:
    return [
        (name, decay, REFERENCES[name].plan(config.classifier, decay, seed=0))
        for name in config.classifier.references
        for decay in config.classifier.reference_weight_decays
    ]


def record_of(plan: Plan, records: Records) -> dict[str, Any]:
    """The record of the unit that trained as planned, perhaps with further heads beside."""
    training = replace(plan, heads=())
    return next(
        record
        for done, record in records.items()
        if replace(done, heads=()) == training and set(plan.heads) <= set(done.heads)
    )


def _read_best(search: str) -> dict[str, Any]:
    filesystem, path = fsspec.core.url_to_fs(f"{search}/best.json")
    return json.loads(filesystem.cat_file(path))
