"""Previews show an adapter as it learns, and leave its training alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysynth.finetune.kept_previews import IMAGES, previews_of, read
from raysynth.finetune.training import train_pack
from tests.finetune.test_training import quiet, weights


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_training_with_previews_ends_in_the_same_bits(room, tmp_path, ema):
    told: list[tuple[dict, list]] = []

    def report(done, failed, fit="", losses=None, previews=(), doing=""):
        if previews:
            told.append((dict(done), list(previews)))

    torch.manual_seed(7)
    plain = room.config(steps=5, ema=ema)
    assert train_pack(room.pack(plain, tmp_path / "plain"), quiet) == {}
    after = torch.random.get_rng_state()
    torch.manual_seed(7)
    shown = room.config(steps=5, ema=ema, preview_steps=3)
    assert train_pack(room.pack(shown, tmp_path / "shown"), report) == {}
    names = [job.name for job in room.jobs(plain)]
    for name in names:
        one, other = (weights(tmp_path / of, name) for of in ("plain", "shown"))
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(after, torch.random.get_rng_state()), "no number of torch's own was drawn"
    found = previews_of(str(tmp_path / "shown"), names)
    steps = {name: [step for step, _ in own] for name, own in found.items()}
    assert steps == {name: [3, 5] for name in names}
    assert not previews_of(str(tmp_path / "plain"), names)
    assert {name for _, own in told for name in own} == set(names)


def test_a_preview_is_a_row_of_images_that_change_with_the_adapter(room, tmp_path):
    config = room.config(steps=6, preview_steps=3, learning_rate=0.05)
    (name,) = [job.name for job in room.jobs(config)][:1]
    train_pack(room.pack(config, tmp_path, [name]), quiet)
    first, last = (read(f"{tmp_path}/{name}", step) for step in (3, 6))
    assert first.shape == last.shape and first.dtype == np.uint8
    assert first.shape[1] == IMAGES * first.shape[0] and first.shape[2] == 3
    assert np.abs(first.astype(int) - last).max() > 0
    assert read(f"{tmp_path}/{name}", 4) is None


def test_previews_are_no_part_of_any_digest(room):
    from raysynth.pipeline import stage_digests

    one, other = room.config(), room.config(preview_steps=10)
    assert stage_digests(one) == stage_digests(other)
