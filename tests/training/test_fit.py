"""Plans carried out: phases, batches, determinism, snapshots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysynth.errors import ConfigError, StageError
from raysynth.heads.spec import TRAINED, HeadSpec
from raysynth.networks.build import blueprint_of
from raysynth.training.fit import fit, seed_of
from raysynth.training.plan import Phase, Plan, evaluation_steps
from raysynth.training.trainset import training_set
from raysynth.training.two_stage import configured, plan_of
from tests.training.tiny import tiny_blueprint, tiny_config, tiny_data, tiny_groups

BALANCED_HEAD = HeadSpec("balanced", 0.01)
STAGE_ONE = Phase("synthetic", 12, 3e-3, 1e-2, ratio=0.5, beta=0.5)


def plan(heads=(BALANCED_HEAD,), seed=0, **changes) -> Plan:
    return Plan((replace(STAGE_ONE, **changes),), heads, evaluations=2, seed=seed)


def final_state(planned: Plan, *overrides: str):
    *_, last = fit(planned, tiny_data(), tiny_blueprint(*overrides))
    return last.network.state()


def test_evaluations_are_even_and_end_with_the_last_step():
    assert evaluation_steps(200, 4) == [50, 100, 150, 200]
    assert evaluation_steps(3, 8) == [1, 2, 3]


def test_same_seed_same_weights_other_seed_others():
    first, again, other = final_state(plan()), final_state(plan()), final_state(plan(seed=1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_encoder_learns_and_stage_two_leaves_it_alone():
    planned = Plan((replace(STAGE_ONE, steps=60, beta=1.0),), (BALANCED_HEAD,), evaluations=1)
    snapshot = next(fit(planned, tiny_data(), tiny_blueprint()))
    assert snapshot.validation[BALANCED_HEAD.name].wga >= 0.8
    head = snapshot.fitted[BALANCED_HEAD.name].head
    assert not torch.equal(head.weight, snapshot.network.head.weight)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("objective", ["erm", "balanced"])
def test_a_head_is_fitted_to_real_and_synthetic_images(objective, share):
    """At the optimum the gradient of its definition, written out here, vanishes."""
    spec, data = HeadSpec(objective, 0.1, real_share=share), tiny_data()
    *_, last = fit(plan((spec,)), data, tiny_blueprint())
    head, loss = last.fitted[spec.name].head, 0.0
    weight, bias = (part.clone().double().requires_grad_() for part in (head.weight, head.bias))
    real, _ = last.network.outputs(data.train)
    # Ratio 0.5 of the 56 real images: 28 synthetic ones, 7 of every group.
    rows = training_set(STAGE_ONE, data, seed_of(tiny_config().seed, 0)).rows
    made = data.synthetic.take(rows)
    assert made.counts(4).tolist() == [7] * 4
    parts = ((share, real, data.train), (1 - share, last.network.outputs(made)[0], made))
    for lam, features, images in parts:
        logits = features.double() @ weight.T + bias
        each = F.cross_entropy(logits, torch.tensor(images.label), reduction="none")
        ones = [each[images.group == g].mean() for g in range(4)]
        loss = loss + lam * (each.mean() if objective == "erm" else sum(ones) / 4)
    scaled = weight * real.std(dim=0)
    (loss + 0.05 * scaled.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4
    assert spec.name == f"{objective}-0.1" + ("" if share == 1 else f"-real-{share:g}")


def test_non_finite_loss_stops_and_says_so():
    with pytest.raises(StageError, match="not finite before step"):
        list(fit(plan(learning_rate=1e30, steps=6), tiny_data(), tiny_blueprint()))


def test_three_by_two_groups_and_every_objective():
    data = tiny_data(tiny_groups(3, 2))
    objectives = ("erm", "balanced", "group_dro", "dfr")
    heads = tuple(HeadSpec(objective, 0.01) for objective in objectives)
    *_, last = fit(plan(heads), data, tiny_blueprint())
    for spec in heads:
        assert len(last.validation[spec.name].groups) == 6
        assert last.fitted[spec.name].head.weight.shape[0] == 3


def test_a_second_phase_goes_on_and_a_fresh_one_does_not():
    """All weights are trained in stage 2 of `full`, from where stage 1 left them."""
    none = Phase("real", 1, 1e-12, 0.0)
    first = final_state(Plan((STAGE_ONE,), (TRAINED,), 1))
    went_on = final_state(Plan((STAGE_ONE, none), (TRAINED,), 1))
    anew = final_state(Plan((STAGE_ONE, replace(none, fresh=True)), (TRAINED,), 1))
    alone = final_state(Plan((none,), (TRAINED,), 1))
    key = "stem.weight"
    assert torch.allclose(went_on[key], first[key], atol=1e-6)
    assert torch.allclose(anew[key], alone[key], atol=1e-6)
    assert not torch.allclose(anew[key], first[key], atol=1e-3)


def test_the_best_of_an_earlier_phase_is_kept_when_asked(monkeypatch):
    from raysynth.training import fit as training

    scores = iter([0.5, 0.9, 0.1])
    real = training.group_metrics

    def told(*arguments):
        return replace(real(*arguments), wga=next(scores, 0.0))

    tiny = Phase("real", 1, 1e-12, 0.0)
    states = [
        final_state(Plan((replace(STAGE_ONE, steps=steps),), (TRAINED,), 1)) for steps in (9,)
    ]
    monkeypatch.setattr(training, "group_metrics", told)
    kept = final_state(Plan((replace(STAGE_ONE, steps=9, keep_best=3), tiny), (TRAINED,), 1))
    assert not torch.allclose(kept["stem.weight"], states[0]["stem.weight"], atol=1e-6)


def test_recipe_from_the_configuration():
    classifier = tiny_config("classifier.ratio=0.25", "classifier.head_objective=erm").classifier
    planned = plan_of(configured(classifier), classifier, seed=2)
    (phase,) = planned.phases
    assert (phase.images, phase.ratio, phase.beta, planned.seed) == ("synthetic", 0.25, 0.5, 2)
    assert planned.heads == (HeadSpec("erm", classifier.head_weight_decay),)


def test_heads_on_synthetic_images_need_some():
    classifier = tiny_config("classifier.head_real_share=0.5").classifier
    parameters = configured(classifier)
    assert plan_of(parameters, classifier).heads == (HeadSpec("balanced", 0.3, real_share=0.5),)
    grid = [(0.1, 1.0), (0.1, 0.5)]
    mixed = plan_of(parameters, classifier, heads=grid)
    assert mixed.mixes and [spec.real_share for spec in mixed.heads] == [1.0, 0.5]
    alone = plan_of(parameters | {"ratio": 0.0}, classifier, heads=grid)
    assert not alone.mixes and alone.heads == (HeadSpec("balanced", 0.1),)
    del parameters["head_real_share"]  # as an earlier version's search left them
    assert not plan_of(parameters, classifier).mixes


@pytest.mark.parametrize(
    "key", ["classifier.head_real_share=0.5", "search.head_real_shares=[1, 0]"]
)
@pytest.mark.parametrize("other", ["schedule=full", "head_objective=dfr"])
def test_heads_that_know_real_images_only_refuse_a_share(key, other):
    with pytest.raises(ConfigError, match=rf"{key.split('=')[0]}: below 1 needs .*schedule head"):
        tiny_config(key, f"classifier.{other}")


@pytest.mark.parametrize("objective", ["erm", "balanced", "group_dro"])
def test_full_schedule_trains_all_weights_on_real_images(objective):
    config = tiny_config("classifier.schedule=full", f"classifier.head_objective={objective}")
    planned = plan_of(configured(config.classifier), config.classifier)
    assert planned.heads == (TRAINED,) and planned.phases[0].images == "synthetic"
    last = planned.last
    assert (last.images, last.steps) == ("real", 6)
    assert last.sampling == ("uniform" if objective == "erm" else "balanced")
    assert (last.dro_step_size > 0) == (objective == "group_dro")
    snapshots = list(fit(planned, tiny_data(), blueprint_of(config)))
    assert [snapshot.step for snapshot in snapshots] == [3, 6]


def test_joint_schedule_is_one_phase_on_both_kinds_of_images():
    config = tiny_config("classifier.schedule=joint", "classifier.real_share=0.6")
    parameters = configured(config.classifier)
    (phase,) = plan_of(parameters, config.classifier).phases
    assert (phase.images, phase.real_share, phase.sampling) == ("joint", 0.6, "balanced")
    (phase,) = plan_of(parameters | {"ratio": 0.0}, config.classifier).phases
    assert phase.images == "real"
    planned = plan_of(parameters, config.classifier)
    assert len(list(fit(planned, tiny_data(), blueprint_of(config)))) == 2


def test_a_plan_without_what_came_later_has_the_name_that_it_had():
    joint = tiny_config("classifier.schedule=joint").classifier
    plain = plan_of(configured(joint), joint).to_dict()
    assert "mix" not in plain["phases"][0] and "joint_means" not in plain["phases"][0]
    tuned = ("classifier.schedule=joint", "classifier.mix=0.2", "classifier.joint_means=true")
    both = tiny_config(*tuned).classifier
    (phase,) = plan_of(configured(both) | {"real_share": 0.3}, both).to_dict()["phases"]
    assert (phase["mix"], phase["joint_means"], phase["real_share"]) == (0.2, True, 0.3)
    (alone,) = plan_of(configured(both) | {"ratio": 0.0}, both).phases
    assert (alone.images, alone.mix, alone.joint_means) == ("real", 0.2, False)


def test_mixing_changes_a_training_and_leaves_its_batches_as_they_are():
    def trained(*more: str):
        config = tiny_config("classifier.schedule=joint", "classifier.joint_means=true", *more)
        planned = plan_of(configured(config.classifier), config.classifier)
        *_, last = fit(planned, tiny_data(), blueprint_of(config))
        return last.network.state()["stem.weight"]

    plain, mixed = trained(), trained("classifier.mix=1")
    assert torch.equal(plain, trained("classifier.mix=1e-9"))  # other dice, nothing mixed
    assert not torch.equal(plain, mixed) and torch.equal(mixed, trained("classifier.mix=1"))


@pytest.mark.parametrize("key", ["classifier.joint_means", "classifier.mix", "search.real_shares"])
def test_what_only_the_joint_loss_knows_is_refused_elsewhere(key):
    value = {"classifier.mix": "0.2", "search.real_shares": "[0.5]"}.get(key, "true")
    for schedule in ("head", "full"):
        with pytest.raises(ConfigError, match=rf"{key}=.*schedule={schedule} .*Fix: "):
            tiny_config(f"{key}={value}", f"classifier.schedule={schedule}")
    tiny_config(f"{key}={value}", "classifier.schedule=joint")


def test_a_batch_that_cannot_be_half_real_is_refused():
    given = ("classifier.schedule=joint", "classifier.joint_means=true")
    with pytest.raises(ConfigError, match=r"batch_size: 15 .*Fix: classifier.batch_size=16"):
        tiny_config(*given, "classifier.batch_size=15")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("classifier.steps=0", "pretrained"),
        ("search.steps=[0, 0]", "pretrained"),
        ("classifier={schedule: full, head_objective: dfr}", "schedule full has"),
        ("classifier={schedule: joint, head_objective: group_dro}", "schedule joint has"),
    ],
)
def test_combinations_that_cannot_be_are_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        if override.startswith("classifier={"):
            from raysynth.config.files import load_config

            load_config(None, [override])
        else:
            tiny_config(override)


def test_seeds_of_runs_and_repetitions_differ():
    assert len({seed_of(run, index) for run in range(5) for index in range(5)}) == 25
    assert np.uint32(seed_of(0, 0)) == seed_of(0, 0)
