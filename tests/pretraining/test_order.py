"""What decides a stage: changed settings begin it anew, others leave it as it is."""

from __future__ import annotations

import pytest

KEPT = {
    "pretraining.preview_steps=7": set(),
    "dataset.captions=txt": set(),
    "pretraining.samples=9": {"bars"},
    "pretraining.judge_steps=9": {"judge", "bars"},
    "pretraining.clip.alone_steps=9": {"clip", "bars"},
    "pretraining.denoiser.steps=9": {"denoiser", "bars"},
    "pretraining.denoiser.latents=9": {"latents", "denoiser", "bars"},
    "pretraining.autoencoder.steps=9": {"autoencoder", "latents", "denoiser", "bars"},
    "pretraining.clip.steps=9": {"clip-joint", "clip", "denoiser", "bars"},
}


@pytest.mark.parametrize("setting", KEPT)
def test_a_setting_begins_the_stages_anew_that_it_decides(order, setting):
    before, after = order().keys, order(setting).keys
    assert {name for name in before if before[name] != after[name]} == KEPT[setting]


def test_another_seed_or_data_set_begins_all_anew(order):
    before = order().keys
    for setting in ("seed=1", "dataset.severity=0.8", "pretraining.mirror=false"):
        after = order(setting).keys
        assert all(before[name] != after[name] for name in before)


def test_a_run_is_the_same_whatever_base_was_made_beside_it(config_of):
    assert config_of().digest() == config_of("pretraining.denoiser.steps=9").digest()
