"""Verdicts on content whose answer is known: helped, did not help, cannot be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from raysynth.report import bias
from raysynth.report.case import HELPED, NOT, UNKNOWN
from raysynth.report.content import Spread, read_content
from raysynth.report.searched import importances, notes, parameters
from raysynth.report.tested import Tested, read_tested
from raysynth.report.verdict import judge
from tests.report.made_run import GROUPS, make_run

IMAGES = 200
"""Test images of each group."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config, run = make_run(tmp_path_factory.mktemp("runs"))
    content = read_content(config, run)
    counts = content.counts | {s: np.full(4, IMAGES) for s in ("validation", "test")}
    best = content.best | {"parameters": content.best["parameters"] | {"ratio": 0.25}}
    return replace(content, counts=counts, best=best), run


def said_by(**accuracy: tuple[float, ...]) -> Tested:
    """Predictions of three seeds, a method's first images of each group right."""
    group = np.repeat(np.arange(4), IMAGES)
    place = np.tile(np.arange(IMAGES), 4)
    label = group // 2
    predicted = {
        name: np.stack([np.where(place < IMAGES * np.array(shares)[group], label, 1 - label)] * 3)
        for name, shares in accuracy.items()
    }
    return Tested(tuple(map(str, range(len(group)))), label, group, GROUPS, predicted)


BEST = "erm_balanced_head"
"""The real-only reference that is best on the made run's test images."""


def of(made, ours: float, reference: float, control: float = 0.2):
    content, _ = made
    return judge(
        content,
        said_by(
            raysynth=(0.9, ours, 0.9, 0.9),
            **{BEST: (0.9, reference, 0.9, 0.9), "clip_balanced_head": (0.9, control, 0.9, 0.9)},
        ),
    )


def test_a_difference_beyond_images_and_seeds_is_help(made):
    found = of(made, 0.8, 0.6)
    assert found.word == HELPED
    assert "+20.0 points (95 % interval +" in found.because[0] and "above zero" in found.because[0]
    assert any("another seed" in step for step in found.following)


def test_a_reference_that_is_better_is_no_help(made):
    found = of(made, 0.6, 0.8)
    assert found.word == NOT and "−20.0 points" in found.because[0]
    assert any("generator=vanilla" in step for step in found.following)


def test_a_difference_within_its_interval_cannot_be_told(made):
    content, _ = made
    ours = said_by(raysynth=(0.9, 0.72, 0.9, 0.9), **{BEST: (0.9, 0.7, 0.9, 0.9)})
    # The reference errs on other images: as many, but the two points are within the noise.
    order = np.arange(4 * IMAGES).reshape(4, IMAGES)[:, ::-1].ravel()
    others = ours.predicted | {BEST: ours.predicted[BEST][:, order]}
    found = judge(content, replace(ours, predicted=others))
    assert found.word == UNKNOWN and "holds zero" in found.because[0]
    assert any("classifier.seeds=10" in step for step in found.following)


def test_a_search_that_chose_real_images_is_no_help_whatever_test_says(made):
    content, run = made
    parameters = content.best["parameters"] | {"ratio": 0.0}
    alone = replace(content, best=content.best | {"parameters": parameters})
    assert of((alone, run), 0.9, 0.5).word == NOT
    assert "on real images alone" in of((alone, run), 0.9, 0.5).because[0]


def test_without_predictions_or_references_nothing_can_be_told(made):
    content, _ = made
    assert judge(content, None).word == UNKNOWN
    mine = replace(content, methods=(content.ours,))
    assert "no real-only reference" in judge(mine, None).because[0]
    assert judge(replace(content, methods=()), None).word == UNKNOWN


def test_what_the_base_knows_by_itself_is_told(made):
    directly = of(made, 0.7, 0.5, control=0.9)
    assert directly.word == HELPED and "when it is used directly" in directly.because[1]
    assert any("classifier.backbone=clip" in step for step in directly.following)
    assert "more than what the base" in of(made, 0.7, 0.5, control=0.5).because[1]
    assert "may be no more than" in of(made, 0.7, 0.5, control=0.7).because[1]


def test_small_groups_are_warned_of(made):
    content, run = made
    counts = {"validation": np.array([100, 3, 100, 100]), "test": np.array([100, 100, 2, 100])}
    small = replace(content, counts=content.counts | counts)
    found = of((small, run), 0.8, 0.6)
    assert any("steps of 1/2, 50.0 points" in why for why in found.because)
    assert "pullover/gravel 3 are fewer than 20" in found.following[0]
    assert [said.split(",")[0] for said in bias.few(small)] == [
        "Few validation images",
        "Few test images",
    ]
    assert not bias.few(content)


def test_a_validation_that_promised_more_is_told(made):
    content, run = made
    ours = replace(content.ours, validation=content.ours.wga.mean + 0.09)
    methods = (*(m for m in content.methods if m.name != "raysynth"), ours)
    found = of((replace(content, methods=methods), run), 0.8, 0.6)
    assert any("Believe the number on test" in why for why in found.because)


def test_bias_is_what_plain_training_does(made):
    content, _ = made
    assert bias.answer(content).startswith("Yes. 90.9 % of the training images")
    fair = [
        replace(m, groups=(Spread(0.9, 0.01, (0.9,)),) * 4) if m.name == "erm" else m
        for m in content.methods
    ]
    assert bias.answer(replace(content, methods=tuple(fair))).startswith("Hardly")
    assert "not measured" in bias.answer(replace(content, methods=()))


def test_predictions_of_a_run_are_read_in_the_order_of_its_images(made):
    _, run = made
    found = read_tested(run)
    assert found.right("raysynth").shape == (3, 24)
    assert found.right("erm")[0].reshape(4, 6).sum(1).tolist() == [6, 0, 1, 6]
    rates = found.rates("erm")
    assert [round(each.missed, 2) for each in rates] == [0.0, 1.0, 0.83, 0.06]
    # Two labels: what one group misses is falsely called the other label of its attribute.
    assert rates[0].false == pytest.approx(rates[2].missed)
    assert rates[1].called == pytest.approx((6 * (1 - 1.0) + 6 * rates[3].missed) / 12)
    wrong = found.misread("erm")
    assert [sum(one.group == g for one in wrong) for g in range(4)] == [0, 6, 5, 0]
    assert wrong[0].called == 1 and (wrong[0].seeds, wrong[0].of) == (3, 3)


def _searched(content, values, ratios):
    """Trials with as many values; the second has half the steps of the others, all reached."""
    usual = {"beta": 0.5, "temperature": 0.1, "learning_rate": 3e-3, "weight_decay": 0.01}
    rows = []
    for position, (value, ratio) in enumerate(zip(values, ratios, strict=True)):
        steps = 100 if position == 1 else 200
        rows.append({**usual, "ratio": ratio, "steps": steps, "validation_wga": value})
        rows[-1]["reached"] = steps
        rows[-1]["beta"] += 0.01 * position
    best = {"parameters": {**usual, "ratio": 0.5, "steps": 200}, "validation": {"wga": 0.8}}
    return replace(content, trials=pd.DataFrame(rows), best=best)


def test_the_search_says_what_it_did_not_find(made, monkeypatch):
    content, _ = made
    points = [{"ratio": ratio, "beta": 0.5} for ratio in (0.0, 0.25, 0.5)]
    monkeypatch.setattr("raysynth.search.space.first_points", lambda *_: points)
    lost = _searched(content, [0.8, 0.7, 0.75], [0.5, 0.0, 0.25])
    assert any(said.startswith("No trial beat the configured values") for said in notes(lost))
    won = _searched(content, [0.7, 0.7, 0.75], [0.5, 0.0, 0.25])
    assert any("gained 5.0 points" in said for said in notes(won))
    assert "temperature" not in parameters(won)
    assert any("not drawn: temperature 0.1" in said for said in notes(won))
    assert importances(won) == {}, "of three trials nothing is computed"


def test_stopped_trials_are_no_evidence(made):
    content, _ = made
    early = _searched(content, [0.8, 0.3, 0.75], [0.5, 0.0, 0.25])
    assert not any("stopped early" in said for said in notes(early)), "few steps are all of its own"
    early.trials.loc[1, "reached"] = 25
    found = notes(early)
    assert found[0].startswith("1 of 3 trials were stopped early")
    assert any("All trials on real images alone" in said for said in found)


def test_what_mattered_has_the_largest_share(made):
    content, _ = made
    rng = np.random.default_rng(0)
    ratios = rng.choice([0.0, 0.5], 30)
    searched = _searched(content, 0.5 + 0.4 * ratios, ratios)
    searched.trials["weight_decay"] = rng.uniform(0.001, 0.1, 30)
    found = importances(searched)
    assert max(found, key=lambda name: found[name]) == "ratio"
    assert sum(found.values()) == pytest.approx(1)
