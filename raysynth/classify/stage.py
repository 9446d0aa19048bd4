"""The classification stage: the search's winner trained again, measured on test once, shipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from raysynth.config.config import Config
from raysynth.errors import DataError
from raysynth.evaluation.final import Final, predict_test, ship, shipped_index
from raysynth.evaluation.kinds import OURS
from raysynth.evaluation.preference import in_words, preferred
from raysynth.evaluation.results import (
    SELECTION_RULE,
    Truth,
    chosen,
    measured,
    predictions,
    read_results,
    read_truth,
    write_results,
)
from raysynth.groups.groups import Groups
from raysynth.networks.images import Data
from raysynth.progress import Progress
from raysynth.references.stage import Named, reference_rows
from raysynth.references.tuning import tuning_of
from raysynth.stages.stage import Work
from raysynth.storage.files import make_folder, read_record
from raysynth.training.data import load_data, say_shortage
from raysynth.training.fit import encode_frozen
from raysynth.training.plan import Plan
from raysynth.training.trainset import mixture_counts
from raysynth.training.two_stage import SEARCHED, plan_of
from raysynth.training.units import run_units, start_workers

SOURCE = "Basu et al. 2026 (arXiv 2511.08711), two-stage training; searched by raysynth"


def run_classification(
    config: Config,
    real: str,
    synthetic: str,
    selection: str,
    search: str,
    references: str,
    groups: Groups,
    work: str,
    progress: Progress,
) -> dict[str, Any]:
    """Train the winner's seeds and the mixtures, measure them on test, ship the winner.

    `real`, `synthetic`, `selection`, `search`, `references`: folders or URIs of those stages.
    Writes results.json and predictions.parquet (the references' rows among them), model/ (a
    save_pretrained folder) and units/ below `work`; units that are there are not trained again.

    Returns
    -------
    `rows` (final classifiers measured here), `methods` ({name: mean test WGA}),
    `training_seconds`.

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
    shared, folder, settings = ray.put(data), f"{work}/units", config.classifier
    make_folder(folder)
    ray.get(ready)
    ours = [plan_of(best["parameters"], settings, seed) for seed in range(settings.seeds)]
    tuning = tuning_of(
        settings.mixtures, config.references.for_mixtures(config.classifier), settings.seeds
    )
    # The winner's seeds wait for nothing: trained beside the tuning, no worker stands idle.
    records = run_units(
        tuning.first + ours,
        shared,
        config,
        folder,
        progress,
        "mixtures tuned, final seeds" if settings.mixtures else "final seeds",
        then=tuning.further,
        frozen=_frozen_features(ours[0], shared, config),
    )
    mixed, tried = tuning.finals(records)
    mine = [Final(OURS, records[plan], plan.heads[0].name) for plan in ours]
    progress.update("test, once", 0, len(mixed) + len(mine))
    size = data.train.size
    found = predict_test([*mixed, *mine], config, real, size, groups, folder)
    truth = read_truth(real, data.train.counts(groups.count), groups)
    methods, named = _rows(mixed, mine, found, truth, config, data, progress)
    known, rows = read_results(references)
    preference = _preference(known["methods"] | methods, progress)
    _ship(mine, found[len(mixed) :], truth, config, data, folder, work, preference)
    report = {
        "selection_rule": SELECTION_RULE,
        "methods": known["methods"] | methods,
        "tuning": known["tuning"] + tried,
        "search": best,
    }
    write_results(work, report, pa.concat_tables([rows, predictions(truth, named)]))
    return {
        "rows": len(named),
        "methods": {name: values["wga"]["mean"] for name, values in report["methods"].items()},
        "training_seconds": round(sum(record["seconds"] for record in records.values()), 1),
    }


def _rows(
    mixed: Sequence[Final],
    mine: Sequence[Final],
    found: Sequence[Any],
    truth: Truth,
    config: Config,
    data: Data,
    progress: Progress,
) -> tuple[dict[str, Any], list[Named]]:
    """The rows of the mixtures and of ours, and all predictions; `found`: theirs, then ours."""
    own = found[len(mixed) :]
    methods, named = reference_rows(
        mixed, found[: len(mixed)], truth, config.references.for_mixtures(config.classifier)
    )
    for name in config.classifier.mixtures:
        methods[name]["synthetic"] = _synthetic(name, config, data, progress)
    methods[OURS] = _own_row(mine, own, truth, config)
    return methods, named + [(OURS, f.seed, one) for f, one in zip(mine, own, strict=True)]


def _synthetic(name: str, config: Config, data: Data, progress: Progress) -> dict[str, int]:
    """Synthetic images that a mixture asks for by its definition, and those that there were."""
    first = (
        tuning_of([name], config.references.for_mixtures(config.classifier), 1).first[0].phases[0]
    )
    wanted, used = mixture_counts(first.images, data)
    if used < wanted:
        progress.say(f"  {name} asks for {wanted} synthetic images; {used} were kept and used")
    return {"wanted": wanted, "used": used}


def _own_row(
    finals: Sequence[Final], found: Sequence[Any], truth: Truth, config: Config
) -> dict[str, Any]:
    search = config.search
    return {
        "kind": OURS,
        "source": SOURCE,
        "uses_validation": False,
        "budget": {
            "trainings": search.trials,
            "stopping_points": search.trials * config.classifier.evaluations,
            "heads_each": len(search.heads),
        },
        **measured(truth, found, [final.validation for final in finals]),
        "chosen": chosen(finals),
        "training_seconds": [final.record["seconds"] for final in finals],
    }


def _ship(
    finals: Sequence[Final],
    found: Sequence[Any],
    truth: Truth,
    config: Config,
    data: Data,
    units: str,
    work: str,
    preference: str,
) -> None:
    """Save the seed that validation likes best, in a worker: it holds torch already."""
    best = shipped_index(finals)
    metrics = [truth.measures(one) for one in found]
    resources = config.resources
    task = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(ship)
    size, told = data.train.size, [metrics[best], *metrics]
    about = (truth.groups, truth.counts, units, work, told, preference)
    ray.get(task.remote(finals[best], config, size, *about))


def _preference(methods: dict[str, Any], progress: Progress) -> str:
    """What validation prefers to the classifier that is shipped, said and returned."""
    found = preferred(methods, OURS)
    if found is None:
        return ""
    words = in_words(found, found["name"])
    progress.say(f"  {words}")
    return words


def _frozen_features(plan: Plan, data: Any, config: Config) -> Any:
    """Reference to the features that the seeds of a plan of no steps share; None for others."""
    if not plan.frozen:
        return None
    resources = config.resources
    return ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(
        encode_frozen
    ).remote(plan, data, config)


def _read_best(search: str) -> dict[str, Any]:
    """best.json with all that a plan is made of, each a number."""
    path = f"{search}/best.json"
    best = read_record(path, "parameters", kind=dict)
    asked = ("ratio", *SEARCHED)
    wrong = [name for name in asked if not _finite(best["parameters"].get(name))]
    if wrong:
        raise DataError(
            f"{path}: {', '.join(wrong)} missing or no number; expected {', '.join(asked)}. Fix: "
            f"delete the folder {search} and run again: its stage is made anew"
        )
    return best


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_classification`."""
    return run_classification(
        work.config,
        work.path("ingest"),
        work.path("synthesis"),
        work.path("selection"),
        work.path("search"),
        work.path("references"),
        work.groups,
        work.folder,
        work.progress,
    )
