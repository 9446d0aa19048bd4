"""The search space and the points tried first."""

from __future__ import annotations

from ray.tune.search.sample import Categorical, Domain, Float, Integer

from raysynth.search.settings import RANGES
from raysynth.search.space import first_points, search_space
from raysynth.search.trial import read, written
from raysynth.training.two_stage import SEARCHED, TriedHead
from tests.training.tiny import tiny_config


def space_of(*overrides: str) -> dict:
    config = tiny_config(*overrides)
    return search_space(config.classifier, config.search)


def test_what_is_searched_is_what_a_training_reads_and_has_a_range():
    assert tuple(RANGES) == SEARCHED


def test_every_searched_knob_has_a_domain():
    space = space_of()
    assert isinstance(space["ratio"], Categorical) and 0.0 in space["ratio"].categories
    assert isinstance(space["steps"], Integer) and (space["steps"].lower, space["steps"].upper) == (
        6,
        13,
    )
    assert isinstance(space["learning_rate"], Float)
    assert all(isinstance(domain, Domain) for domain in space.values())


def test_a_range_of_one_value_is_a_constant():
    space = space_of("search.betas=[1.0, 1.0]")
    assert space["beta"] == 1.0
    points = first_points(tiny_config().classifier, tiny_config("search.betas=[1.0, 1.0]").search)
    assert "beta" not in points[0]


def test_first_points_hold_every_ratio_real_only_second():
    config = tiny_config("search.ratios=[0.0, 0.25, 0.5]", "classifier.steps=1000")
    points = first_points(config.classifier, config.search)
    assert [point["ratio"] for point in points] == [0.5, 0.0, 0.25]
    assert {point["steps"] for point in points} == {12}  # clipped to the range


def test_weights_of_real_images_are_searched_where_they_are_asked_for():
    assert "real_share" not in space_of("classifier.schedule=joint")
    joint = ("classifier.schedule=joint", "search.real_shares=[0, 0.25, 0.5, 0.75, 1]")
    assert space_of(*joint)["real_share"].categories == [0.0, 0.25, 0.5, 0.75, 1.0]
    config = tiny_config(*joint, "search.ratios=[0.0, 0.5]")
    points = first_points(config.classifier, config.search)
    tried = [(point["ratio"], point["real_share"]) for point in points]
    assert tried[:2] == [(0.5, 0.75), (0.0, 0.75)]  # 0.8 is configured
    assert sorted(share for ratio, share in tried if ratio) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert len(tried) == 6


def test_a_head_is_read_as_it_was_written():
    head = TriedHead(1e-05, 1 / 3)
    assert read(written(head)) == head and "/" not in written(head)
