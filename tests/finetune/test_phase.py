"""Phases: ragged batches become equal runs, and each adapter's loss is its own mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from raysynth.finetune.material import Material
from raysynth.finetune.memory import Footprint, slots_within
from raysynth.finetune.phase import Row, lay_out, run_length
from raysynth.models.condition import Condition


@dataclass(frozen=True)
class Named:
    name: str
    group: int = 0
    cluster: int = 0
    bin: int = -1
    without: int = -1
    key: tuple[int, ...] = ()


def row(images, batch, at=0) -> Any:
    dice = torch.Generator().manual_seed(images)
    entries = torch.randint(images, (6, batch), generator=dice)
    material = Material(
        moments=torch.randn(images, 2, 1, 2, 2, generator=dice).half(),
        texts=Condition({"states": torch.randn(2, 3, 4, generator=dice)}),
        entries=entries,
        spoken=entries % 2,
        uniform=torch.rand(6, batch, generator=dice),
        weights=torch.full([batch], 1 / batch),
        also={"other": (entries + 1) % 2},
    )
    return Row(Named(str(images)), material, at, at)


@pytest.mark.parametrize(
    ("counts", "length"), [([12, 12, 12], 12), ([8, 4, 12], 4), ([5], 5), ([64, 1], 4)]
)
def test_run_length(counts, length):
    assert run_length(counts) == length


def test_rows_point_to_their_own_adapters_images():
    rows = [row(5, 3), row(9, 4, at=2)]
    phase = lay_out(rows, 2)
    start = 0
    for number, one in enumerate(rows):
        own = phase.entries[:, start : start + one.count]
        drawn = one.material.entries[one.at : one.at + 2]
        assert torch.equal(phase.moments[own], one.material.moments[drawn])
        assert torch.equal(
            phase.texts.take(phase.spoken[:, start : start + one.count])["states"],
            one.material.texts.take(one.material.spoken[one.at : one.at + 2])["states"],
        )
        assert torch.equal(
            phase.texts.take(phase.also["other"][:, start : start + one.count])["states"],
            one.material.texts.take(one.material.also["other"][one.at : one.at + 2])["states"],
        )
        used = phase.weights[number] > 0
        assert used.sum() == one.count and used[start : start + one.count].all()
        assert phase.weights[number].sum() == pytest.approx(1.0)
        start += len(phase.columns[number])
    assert phase.entries.shape[1] % run_length([3, 4]) == 0


def test_noise_is_the_same_whoever_is_beside():
    one, other = row(5, 3), row(9, 4)
    alone, together = lay_out([one], 2), lay_out([other, one], 2)
    first = len(together.columns[0])
    beside = together.noise(1, seed=0)[:, first : first + 3]
    assert torch.equal(alone.noise(1, seed=0)[:, :3], beside)


def test_prior_images_weigh_as_configured():
    one = row(5, 6)
    weights = torch.tensor([1 / 3] * 3 + [0.5 / 3] * 3)
    phase = lay_out([replace(one, material=replace(one.material, weights=weights))], 1)
    assert phase.weights[0, :3].tolist() == pytest.approx([1 / 3] * 3)
    assert phase.weights[0, 3:].tolist() == pytest.approx([0.5 / 3] * 3)


def test_images_are_not_gathered_again_while_the_adapters_stay():
    rows = [row(5, 3), row(9, 4)]
    before = lay_out(rows, 1)
    assert lay_out(rows, 1, before).moments is before.moments
    assert lay_out(rows[1:], 1, before).moments is not before.moments


def test_slots_are_what_memory_allows_and_at_least_one():
    footprint = Footprint(fixed=100.0, per_adapter=10.0, per_row=1.0)
    assert footprint.of(2, 8) == 128
    assert slots_within(footprint, [4] * 10, budget=170) == 5
    assert slots_within(footprint, [4, 40, 4], budget=165) == 2
    assert slots_within(footprint, [4] * 3, budget=1) == 1
    assert slots_within(footprint, [4] * 3, budget=1e9) == 3
