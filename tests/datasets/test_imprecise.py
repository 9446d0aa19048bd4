"""Attributes of training images that are hidden or wrong, as asked; nothing else is touched."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from raysynth.config.files import load_config
from raysynth.datasets.imprecise import imprecise_attributes
from raysynth.datasets.listing import known_counts, list_dataset, split_counts
from raysynth.errors import ConfigError, DataError
from raysynth.groups.groups import UNKNOWN
from tests.datasets.test_folder import config_for
from tests.datasets.test_unknown import labels_alone

SMALL = (
    "dataset.severity=0.9",
    "dataset.train_images=400",
    "dataset.validation_images=40",
    "dataset.test_images=40",
    "grouping.method=dmis",
)


def listed(*settings):
    """Data set, groups and listing of 400 training images: 180, 20, 20, 180."""
    config = load_config(None, [*SMALL, *settings])
    return list_dataset(config.dataset, config.seed)


def test_every_group_loses_the_same_share_and_more_holds_less():
    group = np.repeat(np.arange(4), (180, 20, 20, 180))
    attribute = group % 2
    found = {h: imprecise_attributes(attribute, group, 2, h, 0.0, 0) for h in (0.5, 0.9, 1.0)}
    for share, values in found.items():
        gone = np.bincount(group[values == UNKNOWN], minlength=4)
        assert gone.tolist() == [round(share * n) for n in (180, 20, 20, 180)]
        kept = values != UNKNOWN
        assert np.array_equal(values[kept], attribute[kept])
    assert ((found[0.5] == UNKNOWN) <= (found[0.9] == UNKNOWN)).all()
    assert not np.array_equal(found[0.5], imprecise_attributes(attribute, group, 2, 0.5, 0.0, 1))
    few = imprecise_attributes(np.zeros(2, int), np.zeros(2, int), 2, 0.9, 0.0, 0)
    assert sorted(few.tolist()) == [UNKNOWN, 0]  # one stays known


def test_wrong_attributes_are_others_and_as_many_as_asked():
    group = np.repeat(np.arange(3), 200)
    found = imprecise_attributes(group, group, 3, 0.0, 0.25, 0)
    for g in range(3):
        counts = np.bincount(found[group == g], minlength=3)
        assert counts[g] == 150 and min(np.delete(counts, g)) >= 15
    more = imprecise_attributes(group, group, 3, 0.0, 0.5, 0)
    wrong = found != group
    assert np.array_equal(more[wrong], found[wrong])  # the smaller share's stay as they were
    both = imprecise_attributes(group, group, 3, 0.5, 0.25, 0)
    left = both != UNKNOWN
    assert left.sum() == 300 and np.array_equal(both[left], found[left])


def test_a_listing_hides_training_attributes_and_composes_the_same_images():
    data, groups, whole = listed()
    again, _, hidden = listed("dataset.hidden_attributes=0.9")
    assert known_counts(hidden, groups).tolist() == [[18, 2, 180], [2, 18, 180]]
    assert known_counts(hidden, groups, "validation").tolist() == [[10, 10, 0], [10, 10, 0]]
    assert split_counts(hidden, groups)["test"].tolist() == [10] * 4
    gone = hidden["attribute"].to_numpy() == UNKNOWN
    assert np.array_equal(gone, hidden["group"].to_numpy() == UNKNOWN)
    assert hidden.drop(["attribute", "group"]).equals(whole.drop(["attribute", "group"]))
    rows = np.flatnonzero(gone)[:8]
    assert again.images(hidden.take(rows)) == data.images(whole.take(rows))


def test_wrong_attributes_move_training_images_to_another_group():
    _, groups, whole = listed()
    _, _, wrong = listed("dataset.wrong_attributes=0.2")
    assert split_counts(wrong, groups)["train"].tolist() == [148, 52, 52, 148]
    train = pc.equal(whole["split"], "train").to_numpy()
    moved = wrong["group"].to_numpy() != whole["group"].to_numpy()
    assert moved.sum() == 80 and not moved[~train].any()
    assert np.array_equal(wrong["group"].to_numpy() // 2, whole["label"].to_numpy())


def test_hidden_attributes_need_a_method_that_infers_them():
    with pytest.raises(ConfigError, match=r"hidden_attributes: 0.9, but.*given.*Fix:.*method=dmis"):
        load_config(None, [*SMALL[:-1], "dataset.hidden_attributes=0.9"])
    load_config(None, [*SMALL[:-1], "dataset.wrong_attributes=0.9"])  # groups are there, as said


def test_what_is_not_known_cannot_be_hidden(tmp_path):
    folder = labels_alone(tmp_path)
    config = config_for(folder, "dataset.attributes=unknown", "dataset.hidden_attributes=0.5")
    with pytest.raises(ConfigError, match=r"hidden_attributes: .*80 image.*Fix: .*attributes=0"):
        list_dataset(config.dataset, 0)


def test_validation_and_test_have_all_groups_where_training_is_hidden():
    with pytest.raises(DataError, match=r"fewer than 2 validation image"):
        listed("dataset.hidden_attributes=0.9", "dataset.validation_images=4")
