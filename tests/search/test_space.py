"""The search space and the points tried first."""

from __future__ import annotations

from ray.tune.search.sample import Categorical, Domain, Float, Integer

from raysynth.search.space import first_points, search_space
from tests.training.tiny import tiny_config


def test_every_searched_knob_has_a_domain():
    space = search_space(tiny_config().search)
    assert isinstance(space["ratio"], Categorical) and 0.0 in space["ratio"].categories
    assert isinstance(space["steps"], Integer) and (space["steps"].lower, space["steps"].upper) == (
        6,
        13,
    )
    assert isinstance(space["learning_rate"], Float)
    assert all(isinstance(domain, Domain) for domain in space.values())


def test_a_range_of_one_value_is_a_constant():
    space = search_space(tiny_config("search.betas=[1.0, 1.0]").search)
    assert space["beta"] == 1.0
    points = first_points(tiny_config().classifier, tiny_config("search.betas=[1.0, 1.0]").search)
    assert "beta" not in points[0]


def test_first_points_hold_every_ratio_real_only_second():
    config = tiny_config("search.ratios=[0.0, 0.25, 0.5]", "classifier.steps=1000")
    points = first_points(config.classifier, config.search)
    assert [point["ratio"] for point in points] == [0.5, 0.0, 0.25]
    assert {point["steps"] for point in points} == {12}  # clipped to the range
