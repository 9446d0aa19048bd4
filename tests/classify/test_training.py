"""The two-stage training: plans, batches, determinism, snapshots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raysynth.classify.recipe import configured, plan_of
from raysynth.classify.references import REFERENCES
from raysynth.classify.references.reference import merged
from raysynth.classify.training import (
    HeadSpec,
    Plan,
    batch_rows,
    evaluation_steps,
    fit,
    seed_of,
    stage_one_images,
)
from raysynth.errors import ConfigError, StageError
from tests.classify.tiny import tiny_config, tiny_data, tiny_groups

BALANCED_HEAD = HeadSpec("balanced", 0.01)


def plan(**changes) -> Plan:
    base = Plan(0.5, 12, 3e-3, 1e-2, (BALANCED_HEAD,), beta=0.5, evaluations=2)
    return replace(base, **changes)


def final_state(changed: Plan):
    *_, last = fit(changed, tiny_data(), tiny_config())
    return last.network.state()


def test_evaluations_are_even_and_end_with_the_last_step():
    assert evaluation_steps(200, 4) == [50, 100, 150, 200]
    assert evaluation_steps(3, 8) == [1, 2, 3]


def test_same_seed_same_weights_other_seed_others():
    first, again, other = final_state(plan()), final_state(plan()), final_state(plan(seed=1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_ratio_decides_what_the_encoder_sees():
    data = tiny_data()
    half = stage_one_images(plan(ratio=0.5), data, 0)
    assert half.counts(4).tolist() == [7, 7, 7, 7]  # 0.5 * 56 real images
    assert set(half.ids.tolist()) <= set(data.synthetic.ids.tolist())
    assert stage_one_images(plan(ratio=9.0), data, 0).counts(4).tolist() == [10] * 4
    assert stage_one_images(plan(ratio=0.0), data, 0) is data.train


def test_uniform_batches_are_epochs_and_balanced_ones_even_out_groups():
    data = tiny_data()
    uniform = batch_rows(data.train, plan(), 14, 4, 0)
    epoch = np.concatenate([next(uniform) for _ in range(4)])
    assert sorted(epoch.tolist()) == list(range(56))
    even = batch_rows(data.train, plan(sampling="balanced"), 40, 4, 0)
    drawn = data.train.group[np.concatenate([next(even) for _ in range(50)])]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 0.25, atol=0.04)


def test_encoder_learns_and_stage_two_leaves_it_alone():
    data = tiny_data()
    snapshots = fit(plan(steps=60, evaluations=1, beta=1.0), data, tiny_config())
    snapshot = next(snapshots)
    assert snapshot.validation[BALANCED_HEAD.name].wga >= 0.8
    head = snapshot.heads[BALANCED_HEAD.name]
    assert not torch.equal(head.weight, snapshot.network.head.weight)


def test_non_finite_loss_stops_and_says_so():
    with pytest.raises(StageError, match="not finite before step"):
        list(fit(plan(learning_rate=1e30, steps=6), tiny_data(), tiny_config()))


def test_three_by_two_groups():
    data = tiny_data(tiny_groups(3, 2))
    *_, last = fit(plan(), data, tiny_config())
    metrics = last.validation[BALANCED_HEAD.name]
    assert len(metrics.groups) == 6
    assert last.heads[BALANCED_HEAD.name].weight.shape[0] == 3


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_every_reference_trains_on_real_images_only(name):
    config, data = tiny_config(), tiny_data()
    planned = REFERENCES[name].plan(config.classifier, 0.1, seed=0)
    assert planned.ratio == 0
    snapshots = list(fit(planned, data, config))
    assert [s.step for s in snapshots] == [6, 12]
    assert set(snapshots[-1].validation) == {spec.name for spec in planned.heads}


def test_group_dro_differs_from_balanced_sampling():
    config = tiny_config("classifier.dro_step_size=1.0")
    dro = REFERENCES["group_dro"].plan(config.classifier, 0.1, seed=0)
    balanced = REFERENCES["balanced"].plan(config.classifier, 0.1, seed=0)
    first, second = final_state(dro), final_state(balanced)
    assert not torch.equal(first["stem.weight"], second["stem.weight"])


def test_references_share_a_training_where_only_the_head_differs():
    classifier = tiny_config().classifier
    plans = [
        REFERENCES[n].plan(classifier, 0.1, 0) for n in ("erm", "erm_balanced_head", "balanced")
    ]
    shared = merged(plans)
    assert len(shared) == 2
    assert {spec.objective for spec in shared[0].heads} == {"trained", "balanced"}
    assert len(shared[0].heads) == 5


def test_recipe_from_the_configuration():
    classifier = tiny_config("classifier.ratio=0.25", "classifier.head_objective=erm").classifier
    planned = plan_of(configured(classifier), classifier, seed=2)
    assert (planned.ratio, planned.beta, planned.seed) == (0.25, 0.5, 2)
    assert planned.heads == (HeadSpec("erm", classifier.head_weight_decay),)


def test_no_steps_need_a_pretrained_backbone():
    for override in ("classifier.steps=0", "search.steps=[0, 0]"):
        with pytest.raises(ConfigError, match="pretrained"):
            tiny_config(override)


def test_seeds_of_runs_and_repetitions_differ():
    assert len({seed_of(run, index) for run in range(5) for index in range(5)}) == 25
