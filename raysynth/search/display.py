"""Tune's progress on the run's display."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from ray import tune

from raysynth.metrics import TRIAL_WGA, put
from raysynth.progress import Progress

# Tune pickles its callbacks into the experiment's folder; a display holds a lock and a thread, so
# it stays outside, and a restored experiment finds the new driver's one here.
_display: list[tuple[Progress, int]] = []


class TrialProgress(tune.Callback):
    """Counts finished trials and says the best validation WGA so far."""

    def __init__(self) -> None:
        self.best = 0.0
        self.begun = False

    def setup(self, *given: Any, **info: Any) -> None:
        """An experiment begins, or goes on."""
        self.begun = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """At the first step: what an experiment that was cut off has kept."""
        if not self.begun:
            self.begun = True
            scores = [t.metric_analysis.get("validation_wga", {}).get("max", 0.0) for t in trials]
            self.best = max([self.best, *scores])
            self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported."""
        reached = result.get("validation_wga", 0.0)
        self.best = max(self.best, reached)
        put(TRIAL_WGA, reached, trial=trial.trial_id)
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, by itself or by the scheduler."""
        if _display:
            reached = (trial.last_result or {}).get("validation_wga")
            _display[-1][0].note("a trial is done", trial=trial.trial_id, validation_wga=reached)
        self._show(trials)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed, or its process was lost, and is tried again."""
        self._say_lost(trials, trial, "was lost and begins again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed as often as it may."""
        self._say_lost(trials, trial, "failed")

    def _say_lost(self, trials: list[Any], trial: Any, what: str) -> None:
        if _display:
            kept = sum(each.status == "TERMINATED" for each in trials)
            _display[-1][0].say(
                f"  trial {trials.index(trial) + 1} {what}; {kept} finished trials are kept, and "
                "the others go on",
                level="warning",
                trial=trial.trial_id,
            )
        self._show(trials)

    def _show(self, trials: list[Any]) -> None:
        if _display:
            progress, total = _display[-1]
            done = sum(trial.is_finished() for trial in trials)
            progress.update("trials", done, total)
            if self.best:
                progress.detail("best so far", f"validation WGA {100 * self.best:.1f} %")
            if told := _at_work(trials):
                progress.detail("at work", told)


def _at_work(trials: list[Any]) -> str:
    """Trials that run, by number, with the WGA that each has reached last."""
    told = []
    for number, trial in enumerate(trials, 1):
        if trial.status == "RUNNING":
            reached = (trial.last_result or {}).get("validation_wga")
            told.append(f"trial {number}" + ("" if reached is None else f" {100 * reached:.1f} %"))
    return ", ".join(told)


@contextmanager
def shown_on(progress: Progress, total: int) -> Any:
    """While open, `TrialProgress` writes to this display; `total`: number of trials."""
    _display.append((progress, total))
    try:
        progress.update("starting trials")
        yield
    finally:
        _display.pop()
