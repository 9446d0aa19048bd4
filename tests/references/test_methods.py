"""References and controls: each method's definition, on inputs small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raysynth.errors import DataError
from raysynth.heads.judging import halves
from raysynth.heads.logistic import STRENGTHS, averaged_regression, standardisation
from raysynth.heads.seen import Features, Seen
from raysynth.heads.self_disagreement import disagreement, early_stops, fit_self
from raysynth.heads.spec import HEAD_OBJECTIVES, TRAINED, HeadSpec
from raysynth.networks.build import blueprint_of
from raysynth.networks.linear import Head
from raysynth.references.checks import check_halves
from raysynth.references.reference import REFERENCES, Setting, merged, settings
from raysynth.training.fit import fit
from raysynth.training.plan import told
from tests.training.tiny import tiny_blueprint, tiny_config, tiny_data, tiny_groups, tiny_images

SETTING = Setting(0.1, 3e-3)
CPU = torch.device("cpu")


def planned(name: str, *overrides: str, seed: int = 0):
    return REFERENCES[name].plan(tiny_config(*overrides).references, SETTING, seed)


def seen_by(width: int = 6, **more) -> Seen:
    """A snapshot whose features tell the label, loudly the attribute, and noise."""
    data = tiny_data()

    def features(images, seed):
        x = np.random.default_rng(seed).normal(size=(len(images), width)).astype(np.float32)
        x[:, 0] += 2 * images.label
        x[:, 1] += 4 * (images.group % 2)
        return x

    validation = features(data.validation, 1)
    head = Head(torch.zeros(2, width), torch.zeros(2))
    logits = np.zeros((len(data.validation), 2), np.float32)
    found = Features(features(data.train, 0), validation, logits)
    return replace(Seen(found, data, CPU, head, 12, 0), **more)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_every_reference_trains_and_stops_by_validation(name):
    config, data = tiny_config(), tiny_data()
    plan = planned(name)
    snapshots = list(fit(plan, data, blueprint_of(config)))
    assert [snapshot.step for snapshot in snapshots] == [6, 12]
    assert set(snapshots[-1].validation) == {spec.name for spec in plan.heads}
    images = {phase.images for phase in plan.phases}
    if REFERENCES[name].kind == "reference":
        assert all(kind.startswith("real") for kind in images)
    else:
        assert images & {"usb", "asb", "synthetic_fill"}


def test_all_references_have_the_same_budget():
    config = tiny_config("references.weight_decays=[0.1, 1.0]", "references.evaluations=8")
    settled = config.references.settled(config.classifier)
    budgets = [REFERENCES[name].budget(settled) for name in REFERENCES]
    assert {(b["trainings"], b["stopping_points"]) for b in budgets} == {(2, 16)}
    assert len(settings(settled)) == 2
    validated = {name for name in REFERENCES if REFERENCES[name].uses_validation}
    assert validated == {"dfr_validation", "self"}


def test_references_share_a_training_where_only_the_head_differs():
    names = ("erm", "erm_balanced_head", "dfr_train", "dfr_validation", "self", "resampling")
    shared = merged(planned(name) for name in names)
    assert len(shared) == 2
    assert len(shared[0].heads) == 1 + 4 + 3


def test_jtt_trains_twice_from_the_same_start_and_copies_the_errors():
    first, second = planned("jtt", "references.jtt_upweight=7").phases
    assert (first.images, first.steps, first.fresh) == ("real", 6, False)
    assert (second.images, second.upweight, second.fresh) == ("real_errors", 7, True)


def test_group_dro_differs_from_balanced_sampling():
    config = tiny_config("references.dro_step_size=1.0")
    states = []
    for name in ("group_dro", "resampling"):
        plan = REFERENCES[name].plan(config.references, SETTING, 0)
        *_, last = fit(plan, tiny_data(), blueprint_of(config))
        states.append(last.network.state()["stem.weight"])
    assert not torch.equal(*states)


def test_ffr_trains_all_weights_on_real_images_after_its_best_fake_step():
    fake, real = planned("ffr").phases
    assert (fake.images, fake.keep_best) == ("synthetic_fill", 2)
    assert (real.images, real.fresh) == ("real", False)
    assert planned("ffr").heads == (TRAINED,)


def test_averaged_regression_is_the_mean_of_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)) * 3 + 1, np.arange(60) % 2
    x[:, 0] += y
    center, scale = standardisation(x)
    subsets = [np.arange(40), np.arange(20, 60)]
    head = averaged_regression(x, y, subsets, 0.3, "l1", center, scale, CPU)
    fits = []
    for rows in subsets:
        one = LogisticRegression(C=0.3, l1_ratio=1.0, solver="liblinear", random_state=0)
        fits.append(one.fit((x[rows] - center) / scale, y[rows]))
    z = (x - center) / scale
    mean = np.mean([one.decision_function(z) for one in fits], axis=0)
    logits = x @ head.weight.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], mean, atol=1e-5)
    assert (head.weight[1] == 0).any()  # the L1 penalty leaves features out


def test_averaged_regression_of_three_labels():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 4)) + 3 * np.eye(3, 4)[y]
    head = averaged_regression(x, y, [np.arange(90)], 1.0, "l2", *standardisation(x), CPU)
    assert (head.predict(torch.tensor(x, dtype=torch.float32)) == y).mean() > 0.9


def test_a_regression_without_a_label_is_refused():
    y = np.arange(90) % 3
    x = np.eye(3, 4)[y]
    some = [np.flatnonzero(y < 2)]
    with pytest.raises(DataError, match=r"no image of label\(s\) \[2\] among the 60"):
        averaged_regression(x, y, some, 1.0, "l2", *standardisation(x), CPU)


def test_halves_need_two_validation_images_of_each_group():
    groups = tiny_groups()
    check_halves(["erm", "dfr_train"], np.array([5, 1, 1, 5]), groups)
    check_halves(["dfr_validation", "self"], np.array([5, 2, 2, 5]), groups)
    with pytest.raises(DataError, match=r"self are .* got a/2: 1; .* Fix: leave self out"):
        check_halves(["erm", "self"], np.array([5, 1, 2, 5]), groups)


@pytest.mark.parametrize("labels", [2, 3])
def test_two_validation_images_and_one_training_image_of_a_group_are_enough(labels):
    groups = tiny_groups(labels, 2)
    counts = [8, 1] * labels
    data = replace(
        tiny_data(groups),
        train=tiny_images(counts, groups, 1),
        validation=tiny_images([2] * len(counts), groups, 2),
    )
    plan = merged(planned(name) for name in ("dfr_train", "dfr_validation", "self"))[0]
    *_, last = fit(plan, data, tiny_blueprint())
    assert all(len(one.head.bias) == labels for one in last.fitted.values())


def test_dfr_on_training_images_beats_the_shortcut():
    seen = seen_by()
    spec = HeadSpec("dfr_train")
    fitted = HEAD_OBJECTIVES["dfr_train"].fit([spec], seen)["dfr_train"]
    assert fitted.judged is None and fitted.chosen["C"] in STRENGTHS
    assert (fitted.predicted == seen.data.validation.label).mean() > 0.7


def test_dfr_on_validation_is_judged_by_images_it_was_not_fitted_to():
    seen = seen_by()
    fitted = HEAD_OBJECTIVES["dfr_validation"].fit([HeadSpec("dfr_validation")], seen)[
        "dfr_validation"
    ]
    group = seen.data.validation.group
    assert np.bincount(group[fitted.judged]).tolist() == [3, 3, 3, 3]
    fit_half, judge = halves(group, 0)
    np.testing.assert_array_equal(fitted.judged, judge)
    assert not set(fit_half) & set(judge) and len(fit_half) + len(judge) == len(group)
    assert len(halves(np.array([0, 1, 1, 1]), 0)[0]) == 1


def test_self_picks_where_the_early_and_the_final_network_differ_most():
    final = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0]], np.float32)
    early = np.array([[4.0, 0.0], [0.0, 4.0], [1.0, 2.0], [0.1, 0.0]], np.float32)
    assert disagreement(final, early, 2).tolist() == [1, 2]


def test_self_weighs_a_disagreement_by_the_early_prediction():
    """KL(early || final): an answer given up counts more than one gained, of the same logits."""
    sure, unsure = [6.0, 0.0], [0.0, 0.0]
    final = np.array([sure, unsure], np.float32)
    early = np.array([unsure, sure], np.float32)
    assert disagreement(final, early, 1).tolist() == [0]
    p, q = (torch.tensor(logits).softmax(dim=1) for logits in (final, early))
    authors = torch.nn.functional.kl_div(p.log(), q, reduction="none").mean(dim=1)
    assert authors.argsort(descending=True)[:1].tolist() == [0]


def test_self_stops_early_at_the_nearest_evaluations():
    logits = [np.full((24, 2), step, np.float32) for step in range(5)]
    earlier = tuple(zip((10, 20, 50, 60, 90), logits, strict=True))
    seen = seen_by(step=100)
    seen = replace(seen, features=replace(seen.features, earlier=earlier))
    assert list(early_stops(seen)) == [10, 20, 50]
    assert early_stops(seen_by()) == {}


def test_self_moves_the_last_layer_only_where_that_helps():
    seen = seen_by()
    truth = seen.data.validation.label
    shortcut = np.eye(2, dtype=np.float32)[seen.data.validation.group % 2] * 8
    early = np.eye(2, dtype=np.float32)[truth] * 8
    features = replace(seen.features, logits=shortcut, earlier=((6, early),))
    head = Head(torch.zeros(2, 6), torch.zeros(2))
    head.weight[1, 1] = 1.0  # reads the attribute
    fitted = fit_self([HeadSpec("self")], replace(seen, features=features, head=head))["self"]
    assert fitted.chosen["early_stop"] == 6
    right = (fitted.predicted == truth)[fitted.judged].mean()
    before = (head.predict(torch.tensor(features.validation)) == truth)[fitted.judged].mean()
    assert right > before + 0.1
    alone = fit_self([HeadSpec("self")], seen)["self"]
    assert alone.chosen == {} and torch.equal(alone.head.weight, seen.head.weight)


def test_a_plan_is_told_flat():
    text = told(planned("jtt").to_dict())
    assert text["stage_1_images"] == "real" and text["images"] == "real_errors"
    assert "beta" not in text and text["upweight"] == 50


def test_three_labels_through_the_heads_that_scikit_learn_fits():
    config, data = tiny_config(), tiny_data(tiny_groups(3, 2))
    plan = merged(planned(name) for name in ("dfr_train", "dfr_validation", "self"))[0]
    *_, last = fit(plan, data, blueprint_of(config))
    assert set(last.validation) == {"dfr_train", "dfr_validation", "self"}
