"""The classification stage: the search's winner trained again, measured once, the best shipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from numpy.typing import NDArray

from raysynth.classify.card import Origin
from raysynth.classify.ship import own_units, ship, units_of
from raysynth.classify.verdict import verdict
from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.errors import DataError
from raysynth.evaluation.curves import tell_curves, tell_tested
from raysynth.evaluation.final import Final, predict_test
from raysynth.evaluation.kept import final_of
from raysynth.evaluation.kinds import OURS
from raysynth.evaluation.results import (
    SELECTION_RULE,
    Truth,
    measured,
    predictions,
    read_results,
    read_truth,
    trained,
    write_results,
)
from raysynth.fidelity.gate import heeded
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.networks.images import Data
from raysynth.networks.settings import ClassifierConfig
from raysynth.progress import Progress
from raysynth.references.settings import ReferencesConfig
from raysynth.references.stage import Named, reference_rows
from raysynth.references.tuning import Tuning, tuning_of
from raysynth.search.settings import SearchConfig
from raysynth.stages.stage import Work
from raysynth.storage.files import make_folder, read_record, remove
from raysynth.trackers.several import SILENT, Trackers
from raysynth.training.data import load_data, say_shortage
from raysynth.training.fit import encode_frozen
from raysynth.training.plan import Plan
from raysynth.training.trainset import mixture_counts
from raysynth.training.two_stage import SEARCHED, plan_of
from raysynth.training.units import Records, Units, run_units, start_workers

SOURCE = "Basu et al. 2026 (arXiv 2511.08711), two-stage training; searched by raysynth"


def run_classification(
    config: Sections,
    real: str,
    synthetic: str,
    selection: str,
    search: str,
    references: str,
    groups: Groups,
    work: str,
    progress: Progress,
    tracker: Trackers = SILENT,
) -> dict[str, Any]:
    """Train the winner's seeds and the mixtures, measure them, ship what validation likes best.

    `real`, `synthetic`, `selection`, `search`, `references`: folders or URIs of those stages.
    Writes results.json and predictions.parquet (the references' rows among them), model/ (a
    save_pretrained folder; of the references too, see `evaluation.shipping`) and units/ below
    `work`; units that are there are not trained again.

    Returns
    -------
    `rows` (final classifiers measured here), `methods` ({name: mean test WGA}),
    `training_seconds`, `shipped` (see `evaluation.shipping.shipped`; with `words`).

    Raises
    ------
    StageError
        Naming the trainings that failed.
    """
    progress.update("decoding images")
    ready = start_workers(config[ResourcesConfig])
    data = load_data(config[ClassifierConfig].image_size, real, synthetic, selection, groups)
    best = _read_best(search)
    say_shortage(best["parameters"]["ratio"], data, progress)
    units = own_units(config, work, groups, data.train.size)
    make_folder(units.folder)
    ray.get(ready)
    done = _train(config, units, data, best["parameters"], progress)
    tell_curves(tracker, "classification", [*done.mixed, *done.mine])
    progress.update("test, once", 0, len(done.mixed) + len(done.mine))
    truth = read_truth(real, data.train.counts(groups.count), groups)
    tested = Tested(done, truth, predict_test(units, [*done.mixed, *done.mine], real))
    methods, named = _rows(config, tested, data, progress)
    known, rows = read_results(references)
    methods = known["methods"] | methods
    tell_tested(tracker, methods)
    found = _shipped(methods, data, progress)
    _ship(config, truth, methods, found, references, work, units)
    report = {"selection_rule": SELECTION_RULE, "shipped": found, "methods": methods}
    report |= {"search": best, "tuning": known["tuning"] + done.tried}
    write_results(work, report, pa.concat_tables([rows, predictions(truth, named)]))
    return {
        "rows": len(named),
        "methods": {name: values["wga"]["mean"] for name, values in methods.items()},
        "training_seconds": done.seconds,
        "shipped": found,
    }


@dataclass(frozen=True)
class Trained:
    """The final classifiers of the mixtures and of ours; what was tried of the mixtures."""

    mixed: Sequence[Final]
    mine: Sequence[Final]
    tried: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class Tested:
    """The final classifiers and their predictions of test: the mixtures', then ours."""

    trained: Trained
    truth: Truth
    found: Sequence[NDArray[Any]]

    @property
    def of_mixtures(self) -> Sequence[NDArray[Any]]:
        """Predictions of `trained.mixed`."""
        return self.found[: len(self.trained.mixed)]

    @property
    def ours(self) -> Sequence[NDArray[Any]]:
        """Predictions of `trained.mine`."""
        return self.found[len(self.trained.mixed) :]


def _train(
    config: Sections, units: Units, data: Data, parameters: dict[str, Any], progress: Progress
) -> Trained:
    """The winner's seeds, trained beside the tuning of the mixtures: no worker stands idle."""
    settings, shared = config[ClassifierConfig], ray.put(data)
    ours = [plan_of(parameters, settings, seed) for seed in range(settings.seeds)]
    mixing = config[ReferencesConfig].for_mixtures(settings)
    tuning = tuning_of(settings.mixtures, mixing, settings.seeds)
    records = run_units(
        units,
        tuning.first + ours,
        shared,
        progress,
        "mixtures' settings and seeds, final seeds" if settings.mixtures else "final seeds",
        then=tuning.further,
        frozen=_frozen_features(ours[0], shared, units),
        reached=partial(_reached, tuning, ours),
    )
    mixed, tried = tuning.finals(records)
    mine = [Final(OURS, records[plan], plan.heads[0].name) for plan in ours]
    seconds = round(sum(record["seconds"] for record in records.values()), 1)
    return Trained(mixed, mine, tried, seconds)


def _reached(tuning: Tuning, ours: Sequence[Plan], records: Records) -> tuple[int, int]:
    """(done, total) of the mixtures' tuning and of our seeds."""
    done, total = tuning.reached(records)
    return done + sum(plan in records for plan in ours), total + len(ours)


def _rows(
    config: Sections, tested: Tested, data: Data, progress: Progress
) -> tuple[dict[str, Any], list[Named]]:
    """The rows of the mixtures and of ours, and all predictions."""
    mixing = config[ReferencesConfig].for_mixtures(config[ClassifierConfig])
    mixed, mine, truth = tested.trained.mixed, tested.trained.mine, tested.truth
    methods, named = reference_rows(mixed, tested.of_mixtures, truth, mixing)
    for name in config[ClassifierConfig].mixtures:
        methods[name]["synthetic"] = _synthetic(name, mixing, data, progress)
    methods[OURS] = _own_row(config, mine, tested.ours, truth)
    return methods, named + [(OURS, f.seed, one) for f, one in zip(mine, tested.ours, strict=True)]


def _synthetic(
    name: str, mixing: ReferencesConfig, data: Data, progress: Progress
) -> dict[str, int]:
    """Synthetic images that a mixture asks for by its definition, and those that there were."""
    first = tuning_of([name], mixing, 1).first[0].phases[0]
    wanted, used = mixture_counts(first.images, data)
    if used < wanted:
        progress.say(f"  {name} asks for {wanted} synthetic images; {used} were kept and used")
    return {"wanted": wanted, "used": used}


def _own_row(
    config: Sections, finals: Sequence[Final], found: Sequence[Any], truth: Truth
) -> dict[str, Any]:
    search = config[SearchConfig]
    return {
        "kind": OURS,
        "source": SOURCE,
        "uses_validation": False,
        "budget": {
            "trainings": search.trials,
            "stopping_points": search.trials * config[ClassifierConfig].evaluations,
            "heads_each": len(search.heads),
        },
        **measured(truth, found, [final.validation for final in finals]),
        **trained(finals),
    }


def _shipped(methods: dict[str, Any], data: Data, progress: Progress) -> dict[str, Any]:
    """What the rule ships, with its words, which are said."""
    counts = data.validation.counts(data.groups.count).tolist()
    found = verdict(methods, dict(zip(data.groups.names, counts, strict=True)))
    progress.say(f"  {found['words']}")
    return found


def _ship(
    config: Sections,
    truth: Truth,
    methods: dict[str, Any],
    found: dict[str, Any],
    references: str,
    work: str,
    own: Units,
) -> None:
    """Save what the rule found with its card, in a worker: it holds torch already."""
    row, target = methods[found["name"]], f"{work}/model"
    units = units_of(row["kind"], config, references, work, own.groups, own.size)
    final = final_of(units.folder, found["name"], row, found["seed"])
    origin = Origin(config, truth.groups, truth.counts, methods, found, final)
    remove(target)
    ray.get(on_worker(ship, units.resources).remote(units, origin, target))


def _frozen_features(plan: Plan, data: Any, units: Units) -> Any:
    """Reference to the features that the seeds of a plan of no steps share; None for others."""
    if not plan.frozen:
        return None
    return on_worker(encode_frozen, units.resources).remote(plan, data, units.blueprint)


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
        heeded(work),
        work.path("ingest"),
        work.path("synthesis"),
        work.path("selection"),
        work.path("search"),
        work.path("references"),
        work.groups,
        work.folder,
        work.progress,
        work.tracker,
    )
