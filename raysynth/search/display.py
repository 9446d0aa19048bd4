"""Tune's progress on the run's display."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune

from raysynth.groups.groups import FEW
from raysynth.metrics import TRIAL_WGA, put
from raysynth.progress import Progress
from raysynth.search.board import Board
from raysynth.trackers.several import SILENT, Trackers
from raysynth.trackers.tracker import AGA, WGA


@dataclass(frozen=True)
class Shown:
    """Who is told of a search of so many trials."""

    progress: Progress
    total: int
    tracker: Trackers = SILENT
    board: Board | None = None
    evaluations: int = 0
    """Reports of a trial that no rung has stopped."""
    smallest: int = 0
    """Validation images of the group that has fewest; 0: not known."""

    def best(self, wga: float) -> str:
        """The best validation WGA so far, with what it rests on where that is little."""
        said = f"validation WGA {100 * wga:.1f} %"
        few = 0 < self.smallest < FEW
        return said + f" (smallest group: {self.smallest} images)" * few


# Tune pickles its callbacks into the experiment's folder; a display holds a lock and a thread, so
# it stays outside, and a restored experiment finds the new driver's one here.
_display: list[Shown] = []


class TrialProgress(tune.Callback):
    """Counts finished trials and says the best validation WGA so far."""

    def __init__(self) -> None:
        self.best = 0.0
        self.begun = False
        self.search = uuid.uuid4().hex[:8]

    def setup(self, *given: Any, **info: Any) -> None:
        """An experiment begins, or goes on."""
        self.begun = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """At the first step: what an experiment that was cut off has kept."""
        if not self.begun:
            self.begun = True
            scores = [t.metric_analysis.get("validation_wga", {}).get("max", 0.0) for t in trials]
            self.best = max([self.best, *scores])
            for trial in trials:
                if trial.is_finished():
                    self._copy(trial)
            self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported."""
        reached = result.get("validation_wga", 0.0)
        self.best = max(self.best, reached)
        put(TRIAL_WGA, reached, trial=trial.trial_id)
        if _display and "validation_wga" in result:
            step = int(result.get("reached", 0))
            _display[-1].tracker.metrics(_named(trials, trial), step, _values(result))
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, by itself or by the scheduler."""
        if _display:
            reached = (trial.last_result or {}).get("validation_wga")
            progress, tracker = _display[-1].progress, _display[-1].tracker
            progress.note("a trial is done", trial=trial.trial_id, validation_wga=reached)
            if trial.last_result:
                values = _values(trial.last_result)
                tracker.tried(_named(trials, trial), trial.config, values)
                self._copy(trial)
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
            _display[-1].progress.say(
                f"  trial {trials.index(trial) + 1} {what}; {kept} finished trials are kept, and "
                "the others go on",
                level="warning",
                trial=trial.trial_id,
            )
        self._show(trials)

    def _copy(self, trial: Any) -> None:
        """A trial that has ended, for the board."""
        if _display and (board := _display[-1].board):
            made = (trial.last_result or {}).get("training_iteration", 0)
            search = getattr(self, "search", "")  # of experiments of before
            board.add(search, trial, whole=made >= _display[-1].evaluations)

    def _show(self, trials: list[Any]) -> None:
        if _display:
            progress = _display[-1].progress
            done = sum(trial.is_finished() for trial in trials)
            progress.update("trials", done, _display[-1].total)
            if self.best:
                progress.detail("best so far", _display[-1].best(self.best))
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


def _named(trials: list[Any], trial: Any) -> str:
    """What trackers call a trial."""
    return f"search/trial-{trials.index(trial) + 1:02d}"


def _values(result: Mapping[str, Any]) -> dict[str, float]:
    found = {WGA: result.get("validation_wga"), AGA: result.get("validation_aga")}
    return {name: float(value) for name, value in found.items() if value is not None}


@contextmanager
def shown_on(shown: Shown) -> Any:
    """While open, `TrialProgress` tells these."""
    _display.append(shown)
    try:
        shown.progress.update("starting trials")
        yield
    finally:
        _display.pop()
