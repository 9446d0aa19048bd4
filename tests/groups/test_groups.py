"""Groups, severity and the refusal of empty groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raysynth.errors import DataError
from raysynth.groups.groups import (
    Groups,
    aligned_groups,
    minority_size,
    require_every_group,
    subsample_to_severity,
)

TWO = Groups(("pullover", "coat"), ("grass", "gravel"), ("pullover", "coat"), ("grass", "gravel"))
SIX = Groups(("a", "b", "c"), ("x", "y"), ("a", "b", "c"), ("x", "y"))


def test_index_label_attribute_and_name_agree():
    for groups in (TWO, SIX):
        for g in range(groups.count):
            assert groups.index(groups.label(g), groups.attribute(g)) == g
            assert g in groups.of_label(groups.label(g))
    assert SIX.name(5) == "c/y"
    named = replace(SIX, aligned=("y", "", "x"))
    assert Groups.from_dict(SIX.to_dict()) == SIX and Groups.from_dict(named.to_dict()) == named
    assert "aligned" not in SIX.to_dict()  # as tables had it before there was a choice


@pytest.mark.parametrize(
    ("majority", "severity", "expected"),
    # UTKFace and CelebA-HQ in FFR's split files (arXiv 2308.04553)
    [
        (5731, 0.9, 636),
        (5731, 0.99, 58),
        (934, 0.999, 1),
        (7797, 0.97, 242),
        (5335, 0.97, 166),
        (10, 0.999, 1),
    ],
)
def test_minority_size(majority, severity, expected):
    assert minority_size(majority, severity) == expected


def test_severity_thins_only_the_conflicting_groups():
    group = np.repeat(np.arange(6), [900, 100, 50, 950, 500, 400])
    kept = subsample_to_severity(group, SIX, 0.95, seed=0)
    counts = np.bincount(group[kept], minlength=6)
    assert counts.tolist() == [900, 48, 50, 950, 500, 27]
    assert np.array_equal(kept, subsample_to_severity(group, SIX, 0.95, seed=0))
    assert not np.array_equal(kept, subsample_to_severity(group, SIX, 0.95, seed=1))


def test_aligned_groups_are_the_largest_of_their_class():
    assert aligned_groups(np.array([9, 1, 1, 9, 5, 6]), SIX).tolist() == [0, 3, 5]


def test_a_named_group_is_aligned_unless_it_is_empty():
    named = replace(SIX, aligned=("y", "", "x"))
    assert aligned_groups(np.array([9, 1, 1, 9, 5, 6]), named).tolist() == [1, 3, 4]
    assert aligned_groups(np.array([9, 0, 1, 9, 0, 6]), named).tolist() == [0, 3, 5]


def test_an_empty_group_is_named():
    with pytest.raises(DataError, match=r"no train image in group\(s\) coat/grass"):
        require_every_group(np.array([5, 1, 0, 5]), TWO, "train")
