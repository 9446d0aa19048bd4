"""A copy of the search's trials in a database of Optuna's, for optuna-dashboard.

A copy, and not the study that the search itself asks: Tune's `OptunaSearch(storage=)` would go on
with whatever study of this name is there, leave the trials of a driver that was killed in it
running for good, and end the search where the database is away. The searcher's own study stays in
Tune's state, which is what a resumed search goes on from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from raysynth.terminal import clipped, masked

TRIAL = "trial"
"""Attribute of a study's trial: the id of Tune's."""


class Board:
    """The study of one search; whatever its database raises, it is said and the search goes on."""

    def __init__(
        self, url: str, run: str, space: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        """Open nothing yet.

        Parameters
        ----------
        url : of the database, such as sqlite:////data/search.db.
        run : its name, with which studies begin.
        space : Tune's search space.
        say : is told once of a database that fails.
        """
        self._url, self._run, self._say = url, run, say
        self._space: dict[str, BaseDistribution] = OptunaSearch.convert_search_space(dict(space))
        self._study: optuna.Study | None = None
        self._there: set[str] = set()
        self._failed = False

    def add(self, search: str, trial: Any, *, whole: bool) -> None:
        """Copy a trial that has ended, once.

        Parameters
        ----------
        search : which search it is of; a search that goes on has the same, another one another.
        whole : whether it came to its last evaluation; else it is shown as pruned.
        """
        if self._failed or not trial.last_result:
            return
        try:
            study = self._opened(search)
            if trial.trial_id not in self._there:
                study.add_trial(self._copy(trial, whole))
                self._there.add(trial.trial_id)
        except Exception as error:  # a database's, of whatever class
            self._failed = True
            reason = clipped(masked(f"{type(error).__name__}: {error}"))
            self._say(f"  search.storage failed ({reason}); the search goes on without it")

    def _opened(self, search: str) -> optuna.Study:
        if self._study is None:
            self._study = optuna.create_study(
                storage=self._url,
                study_name=f"{self._run} {search}",
                direction="maximize",
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.set_metric_names(["validation WGA"])
            self._there = {str(t.user_attrs.get(TRIAL)) for t in self._study.get_trials(False)}
        return self._study

    def _copy(self, trial: Any, whole: bool) -> FrozenTrial:
        """The trial as Optuna has it, with every report."""
        last = trial.last_result
        settings = {name: trial.config[name] for name in self._space if name in trial.config}
        best = trial.metric_analysis.get("validation_wga", {}).get("max", last["validation_wga"])
        return create_trial(
            state=TrialState.COMPLETE if whole else TrialState.PRUNED,
            value=float(best),
            params=settings,
            distributions={name: self._space[name] for name in settings},
            user_attrs={TRIAL: trial.trial_id, "validation AGA": last.get("validation_aga")},
            intermediate_values={int(last["training_iteration"]): float(last["validation_wga"])},
        )
