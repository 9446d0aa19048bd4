"""Trainings as Ray tasks: what follows from finished ones is trained in the same pass."""

from __future__ import annotations

from dataclasses import replace

from raysynth.classify.plan import TRAINED, Phase, Plan
from raysynth.classify.units import run_units
from raysynth.progress import Progress
from tests.classify.tiny import tiny_config, tiny_data


def test_followers_are_trained_and_none_twice(ray_local, tmp_path):
    first = Plan((Phase("real", 4, 3e-3, 0.01),), (TRAINED,), evaluations=1)
    second = replace(first, seed=1)
    data = ray_local.put(tiny_data())

    def then(records):
        return [first, second] if first in records else []

    for _ in range(2):
        records = run_units(
            [first], data, tiny_config(), str(tmp_path), Progress(), "trainings", then
        )
        assert set(records) == {first, second}
    assert len(list(tmp_path.glob("*.json"))) == 2
