"""Group metrics against numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
)

from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import (
    GroupMetrics,
    bootstrap_interval,
    fairness,
    group_metrics,
    over_seeds,
)
from tests.training.tiny import tiny_groups

# Groups of 4, 2, 2, 2 images; right: 4, 1, 0, 2.
LABEL = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
GROUP = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
PREDICTED = np.array([0, 0, 0, 0, 0, 1, 0, 0, 1, 1])


def test_worst_average_and_weighted_are_three_different_numbers():
    metrics = group_metrics(PREDICTED, LABEL, GROUP, np.array([70, 10, 5, 15]))
    assert metrics.groups == (1.0, 0.5, 0.0, 1.0)
    assert metrics.wga == 0.0
    assert metrics.aga == pytest.approx((1.0 + 0.5 + 0.0 + 1.0) / 4)
    assert metrics.weighted == pytest.approx(0.7 * 1.0 + 0.1 * 0.5 + 0.05 * 0.0 + 0.15 * 1.0)


def test_aga_agrees_with_fairlearn():
    frame = MetricFrame(
        metrics=lambda y, p: float(np.mean(y == p)),
        y_true=LABEL,
        y_pred=PREDICTED,
        sensitive_features=GROUP,
    )
    metrics = group_metrics(PREDICTED, LABEL, GROUP, np.ones(4))
    assert metrics.wga == frame.group_min()
    assert metrics.aga == pytest.approx(frame.by_group.mean())


def test_a_group_without_images_is_refused():
    with pytest.raises(DataError, match=r"group\(s\) \[4\] have no image.*Fix"):
        group_metrics(PREDICTED, LABEL, GROUP, np.ones(5))
    with pytest.raises(DataError, match="0 training images"):
        group_metrics(PREDICTED, LABEL, GROUP, np.zeros(4))


def test_groups_whose_names_are_equal_keep_their_accuracies():
    """Keyed by name the worst group would be gone, and WGA one of three groups."""
    groups = Groups(("a", "a/b"), ("b/c", "c"), ("a", "a/b"), ("b/c", "c"))
    assert groups.name(0) == groups.name(3)
    metrics = GroupMetrics((0.9, 0.8, 0.7, 0.1), 0.1, 0.625, 0.5)
    record = metrics.to_dict(groups)
    assert list(record["groups"].values()) == [0.9, 0.8, 0.7, 0.1]
    assert GroupMetrics.from_dict(json.loads(json.dumps(record))) == metrics
    assert len(over_seeds([record, record])["groups"]) == 4
    assert list(metrics.to_dict(tiny_groups())["groups"]) == ["a/1", "a/2", "b/1", "b/2"]


def test_score_orders_by_wga_then_aga():
    low = GroupMetrics((0.5, 0.9), 0.5, 0.7, 0.0)
    tied = GroupMetrics((0.5, 1.0), 0.5, 0.75, 0.0)
    high = GroupMetrics((0.51, 0.51), 0.51, 0.51, 0.0)
    assert low.score < tied.score < high.score


def test_over_seeds_has_mean_sample_deviation_and_seeds():
    groups = tiny_groups()
    seeds = [
        GroupMetrics((0.2, 0.4, 0.6, 0.8), 0.2, 0.5, 0.6).to_dict(groups),
        GroupMetrics((0.4, 0.4, 0.6, 0.8), 0.4, 0.55, 0.7).to_dict(groups),
    ]
    summary = over_seeds(seeds)
    assert summary["wga"]["mean"] == pytest.approx(0.3)
    assert summary["wga"]["std"] == pytest.approx(0.02**0.5)  # sqrt(((.1)^2 + (.1)^2) / 1)
    assert summary["wga"]["seeds"] == [0.2, 0.4]
    assert summary["groups"]["a/1"]["seeds"] == [0.2, 0.4]
    assert summary["groups"]["b/2"]["std"] == 0.0
    assert over_seeds(seeds[:1])["wga"]["std"] == 0.0


def test_fairness_differences_by_hand():
    # Attribute 0: label 0 right 4 of 4, label 1 right 0 of 2; attribute 1: 1 of 2 and 2 of 2.
    found = fairness(PREDICTED, LABEL, GROUP % 2)
    assert found["equalized_odds"] == pytest.approx(1.0)  # true positive rates 0 and 1
    assert found["demographic_parity"] == pytest.approx(3 / 4 - 0 / 6)
    assert fairness(LABEL, LABEL, GROUP % 2)["equalized_odds"] == 0.0


def test_perfect_predictions_are_fair_where_a_label_has_no_image_of_an_attribute():
    label, attribute = np.array([0, 0, 1, 1, 0]), np.array([0, 0, 0, 0, 1])
    assert equalized_odds_difference(label, label, sensitive_features=attribute) == 1.0
    assert fairness(label, label, attribute)["equalized_odds"] == 0.0
    wrong = np.array([1, 0, 1, 1, 0])  # false positive rates 1/2 and 0
    assert fairness(wrong, label, attribute)["equalized_odds"] == 0.5
    # Each label with one attribute alone: no rate to compare.
    assert fairness(label, label, label)["equalized_odds"] is None
    summary = over_seeds([fairness(label, label, label)] * 2)
    assert summary["equalized_odds"] == {"mean": None, "std": None, "seeds": [None, None]}


def test_fairness_is_fairlearns_where_all_rates_exist():
    rng = np.random.default_rng(0)
    for _ in range(20):
        label, attribute = np.divmod(rng.permutation(np.tile(np.arange(6), 9)), 3)
        predicted = rng.integers(0, 2, len(label))
        named = {"sensitive_features": attribute}
        assert fairness(predicted, label, attribute) == {
            "equalized_odds": equalized_odds_difference(label, predicted, **named),
            "demographic_parity": demographic_parity_difference(label, predicted, **named),
        }


def test_fairness_of_three_labels_is_the_worst_one_against_the_rest():
    label = np.repeat([0, 1, 2], 4)
    attribute = np.tile([0, 0, 1, 1], 3)
    predicted = label.copy()
    predicted[[10, 11]] = 0  # label 2, attribute 1: all wrong
    assert fairness(predicted, label, attribute)["equalized_odds"] == pytest.approx(1.0)


def test_intervals_hold_the_value_and_shrink_with_the_images():
    widths = []
    for each in (50, 800):
        group = np.repeat(np.arange(4), each)
        rate = np.array([0.9, 0.6, 0.8, 0.95])[group]
        right = np.random.default_rng(0).random((3, len(group))) < rate
        found = bootstrap_interval(right, group)
        mean = np.mean([[one[group == g].mean() for g in range(4)] for one in right], axis=0)
        assert found["aga"][0] < mean.mean() < found["aga"][1]
        assert found["wga"][0] - 0.01 < mean.min() < found["wga"][1] + 0.01
        widths.append(found["wga"][1] - found["wga"][0])
    assert widths[1] < widths[0] / 2
    # One seed, one group of n images: the binomial's standard error.
    right = np.random.default_rng(1).random((1, 400)) < 0.7
    low, high = bootstrap_interval(right, np.zeros(400, int))["wga"]
    assert (high - low) / 2 == pytest.approx(1.96 * (0.21 / 400) ** 0.5, rel=0.15)


def test_over_seeds_takes_every_number():
    assert over_seeds([{"a": 1.0, "b": {"c": 2.0}}, {"a": 3.0, "b": {"c": 2.0}}]) == {
        "a": {"mean": 2.0, "std": 2**0.5, "seeds": [1.0, 3.0]},
        "b": {"c": {"mean": 2.0, "std": 0.0, "seeds": [2.0, 2.0]}},
    }
