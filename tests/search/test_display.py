"""Trials that an experiment has kept are shown with its first step."""

from __future__ import annotations

from types import SimpleNamespace

from raysynth.search.display import Shown, TrialProgress, shown_on
from tests.training.test_units import Said


def trial(score: float | None, *, ended: bool) -> SimpleNamespace:
    analysis = {} if score is None else {"validation_wga": {"max": score}}
    status, last = "TERMINATED" if ended else "RUNNING", {"validation_wga": score}
    return SimpleNamespace(
        metric_analysis=analysis,
        is_finished=lambda: ended,
        last_result=last if score else None,
        status=status,
        trial_id="t",
        config={},
    )


def test_kept_trials_and_their_best_are_shown_at_once():
    said, callback = Said(), TrialProgress()
    trials = [trial(0.25, ended=True), trial(0.75, ended=True), trial(None, ended=False)]
    callback.begun = True  # as an experiment's pickle has it
    callback.setup()
    with shown_on(Shown(said, 12)):
        assert said.counts == [(0, 0)], "no number before it is known"
        callback.on_step_begin(0, trials)
        callback.on_step_begin(1, trials)
        assert said.counts[1:] == [(2, 12)] and callback.best == 0.75
        shown = {"best so far": "validation WGA 75.0 %", "at work": "trial 3"}
        assert said.standing()[0].details == shown
        ended = [trial(0.5, ended=True)] * 3
        callback.on_trial_complete(2, ended, ended[0])
        assert said.counts[-1] == (3, 12) and callback.best == 0.75


def test_a_best_that_rests_on_few_images_says_so():
    few = "validation WGA 100.0 % (smallest group: 3 images)"
    assert Shown(Said(), 12, smallest=3).best(1.0) == few
    assert Shown(Said(), 12, smallest=20).best(1.0) == "validation WGA 100.0 %"


def test_a_lost_trial_is_said_to_begin_again_and_one_that_failed_too_often_is_not():
    said, callback = Said(), TrialProgress()
    lines: list[str] = []
    said.say = lambda text, **numbers: lines.append(text)
    done, lost = trial(0.5, ended=True), trial(None, ended=False)
    done.status, lost.status = "TERMINATED", "RUNNING"
    with shown_on(Shown(said, 2)):
        callback.on_trial_recover(1, [done, lost], lost)
        callback.on_trial_error(2, [done, lost], lost)
    kept = "1 finished trials are kept, and the others go on"
    assert lines == [
        f"  trial 2 was lost and begins again; {kept}",
        f"  trial 2 failed; {kept}",
    ]
