"""Few shots of every group: counted, drawn by seed, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.errors import DataError
from raysynth.planning.preflight import check_configuration

SIZES = ("train_images=400", "validation_images=40", "test_images=40", "severity=0.9")


def listed(*overrides: str, seed: int = 0):
    config = load_config(None, [f"dataset.{one}" for one in (*SIZES, *overrides)])
    return list_dataset(config.dataset, seed)[1:]


def test_every_group_has_as_many_and_other_splits_are_whole():
    groups, all_of_it = listed()
    _, few = listed("shots=16")
    counts, whole = split_counts(few, groups), split_counts(all_of_it, groups)
    assert counts["train"].tolist() == [16] * 4
    assert all(np.array_equal(counts[s], whole[s]) for s in ("validation", "test"))
    assert set(few["id"].to_pylist()) < set(all_of_it["id"].to_pylist())


def test_shots_follow_the_seed_and_more_contain_the_fewer():
    def train(shots: int, seed: int = 0) -> set[str]:
        rows = listed(f"shots={shots}", seed=seed)[1].to_pylist()
        return {row["id"] for row in rows if row["split"] == "train"}

    assert train(8) == train(8) < train(16)
    assert train(8) != train(8, seed=1)


def test_more_shots_than_the_smallest_group_has_are_refused_before_ray():
    config = load_config(None, [*(f"dataset.{one}" for one in SIZES), "dataset.shots=21"])
    said = r"shots=21: pullover/gravel has 20 training images; .*Fix: dataset.shots=20"
    with pytest.raises(DataError, match=said):
        check_configuration(config)
