"""Group metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.classify.metrics import GroupMetrics, group_metrics, over_seeds
from tests.classify.tiny import tiny_groups

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
    fairlearn = pytest.importorskip("fairlearn.metrics")
    frame = fairlearn.MetricFrame(
        metrics=lambda y, p: float(np.mean(y == p)),
        y_true=LABEL,
        y_pred=PREDICTED,
        sensitive_features=GROUP,
    )
    metrics = group_metrics(PREDICTED, LABEL, GROUP, np.ones(4))
    assert metrics.wga == frame.group_min()
    assert metrics.aga == pytest.approx(frame.by_group.mean())


def test_a_group_without_images_is_refused():
    with pytest.raises(ValueError, match=r"group\(s\) \[4\] have no image"):
        group_metrics(PREDICTED, LABEL, GROUP, np.ones(5))


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
