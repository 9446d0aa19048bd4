"""The search stage: Ray Tune over the synthetic ratio and the hyperparameters, on validation."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from rich.markup import escape

from raysynth.errors import StageError
from raysynth.fidelity.gate import heeded
from raysynth.groups.groups import Groups, group_counts
from raysynth.knobs import Sections
from raysynth.networks.build import blueprint_of
from raysynth.networks.images import Data
from raysynth.networks.settings import ClassifierConfig
from raysynth.progress import Progress
from raysynth.search.board import Board
from raysynth.search.display import Shown, TrialProgress, shown_on
from raysynth.search.frozen import search_frozen
from raysynth.search.settings import SearchConfig
from raysynth.search.space import first_points, search_space
from raysynth.search.state import check_state
from raysynth.search.table import rows_of, searched, table_of
from raysynth.search.trial import SCORE, run_trial
from raysynth.stages.stage import Work
from raysynth.storage import tables
from raysynth.storage.files import remove, write_atomic
from raysynth.trackers.several import SILENT, Trackers
from raysynth.training.data import load_data, say_shortage
from raysynth.training.two_stage import HEAD, configured

EXPERIMENT = "tune"
LOGGERS = (JsonLoggerCallback(), CSVLoggerCallback())
# Trials drawn at random before Optuna models them: TPE's own default of 10 would leave a small
# search nothing to model.
RANDOM_TRIALS = 6
RETRIES = 2  # of a trial whose process was lost: one that is left out would change what is chosen


def run_search(
    config: Sections,
    real: str,
    synthetic: str,
    selection: str,
    groups: Groups,
    work: str,
    progress: Progress,
    tracker: Trackers = SILENT,
) -> dict[str, Any]:
    """Search, and write best.json and trials.parquet below `work`.

    `real`, `synthetic`, `selection`: folders or URIs of those stages. A trial trains an encoder and
    tries every head on it. An experiment that was cut off is restored: finished trials stay,
    unfinished ones run again.

    Returns
    -------
    `rows` (trials), `best` (as in best.json), `failed` ({trial: reason}); StageError when all did.
    """
    search, classifier = config[SearchConfig], config[ClassifierConfig]
    if search.trials == 0:
        best: dict[str, Any] = {"trial": None, "parameters": configured(classifier)}
        return _write(work, [], best | {"validation": None}, {})
    progress.update("decoding images")
    data = load_data(classifier.image_size, real, synthetic, selection, groups)
    failed: dict[str, str] = {}
    if search.steps[1] == 0:
        progress.update("heads on the pretrained encoder")
        rows = [search_frozen(blueprint_of(config), search, data)]
    else:
        say_shortage(max(search.ratios), data, progress)
        with shown_on(_shown(config, data, progress, tracker)):
            results = _tuner(config, data, work, progress).fit()
            rows, failed = rows_of(results, f"{work}/{EXPERIMENT}")
    if not rows:
        raise _all_failed(failed, work)
    return _write(work, rows, _best(rows), failed)


def _shown(config: Sections, data: Data, progress: Progress, tracker: Trackers) -> Shown:
    """Who is told of the trials."""
    search, classifier, board = config[SearchConfig], config[ClassifierConfig], None
    if search.storage:
        space = search_space(classifier, search)
        board = Board(search.storage, config.name, space, progress.say)
    smallest = int(group_counts(data.validation.group, data.groups.count).min())
    return Shown(progress, search.trials, tracker, board, classifier.evaluations, smallest)


def _all_failed(failed: dict[str, str], work: str) -> StageError:
    return StageError(
        f"search: all {len(failed)} trials failed, e.g. {next(iter(failed.items()))}. Fix: the "
        f"trial folders below {work}/{EXPERIMENT} hold the errors"
    )


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What best.json says of the trial that validation likes best."""
    winner = max(rows, key=lambda row: (row["validation_wga"], row["validation_aga"]))
    return {
        "trial": winner["trial"],
        "parameters": {name: winner[name] for name in (*searched(winner), *HEAD)},
        "validation": {"wga": winner["validation_wga"], "aga": winner["validation_aga"]},
    }


def _tuner(config: Sections, data: Data, work: str, progress: Progress) -> tune.Tuner:
    """A new experiment, or the one that an earlier driver left and that can be read."""
    search, classifier = config[SearchConfig], config[ClassifierConfig]
    space, sampler = search_space(classifier, search), _sampler(config.seed)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, data=data, blueprint=blueprint_of(config), search=search),
        {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial},
    )
    if restored := _restored(f"{work}/{EXPERIMENT}", trainable, space, progress):
        return restored
    searcher = OptunaSearch(
        metric=SCORE,
        mode="max",
        points_to_evaluate=first_points(classifier, search)[: search.trials],
        sampler=sampler,
    )
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=search.concurrent),
            scheduler=ASHAScheduler(
                max_t=classifier.evaluations,
                grace_period=1,
                reduction_factor=search.reduction_factor,
            ),
            num_samples=search.trials,
            reuse_actors=True,
            trial_dirname_creator=_folder_of,
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=work,
            callbacks=[*LOGGERS, TrialProgress()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _sampler(seed: int) -> TPESampler:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)


def _folder_of(trial: Any) -> str:
    """A trial's folder; Tune's own name has all parameters in it, 150 characters."""
    return f"trial-{trial.trial_id}"


def _restored(
    path: str, trainable: Any, space: dict[str, Any], progress: Progress
) -> tune.Tuner | None:
    """The experiment that was cut off there; one that cannot be read is removed."""
    if not tune.Tuner.can_restore(path):
        return None
    try:
        check_state(path)
        return tune.Tuner.restore(path, trainable, resume_unfinished=True, param_space=space)
    except Exception as error:  # Tune unpickles: a cut file may raise anything
        progress.say(escape(f"  {path} cannot be gone on with ({error!r}): searched anew"))
        remove(path)
        return None


def _write(
    work: str, rows: list[dict[str, Any]], best: dict[str, Any], failed: dict[str, str]
) -> dict[str, Any]:
    tables.write_table(table_of(rows), f"{work}/trials.parquet")
    write_atomic(f"{work}/best.json", json.dumps(best, indent=1).encode())
    return {"rows": len(rows), "best": best, "failed": failed}


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_search`."""
    real, synthetic, selection = map(work.path, ("ingest", "synthesis", "selection"))
    return run_search(
        heeded(work),
        real,
        synthetic,
        selection,
        work.groups,
        work.folder,
        work.progress,
        work.tracker,
    )
