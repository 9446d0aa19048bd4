"""Going on from another base, and what cannot be gone on from."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from raysynth.cluster.settings import ResourcesConfig
from raysynth.config.files import load_config
from raysynth.errors import ConfigError, ModelError
from raysynth.models.sources import EMBEDDED
from raysynth.pretraining.checks import check_sizes, check_start, check_workers
from raysynth.pretraining.settings import PretrainingConfig
from raysynth.pretraining.start import begin
from raysynth.pretraining.tokens import build_tokenizer


def test_the_embedded_base_is_gone_on_from_with_the_captions_words():
    tokenizer = build_tokenizer(["a photo of a cog on gravel"])
    settings = PretrainingConfig(start="embedded")
    check_start(settings)
    parts = begin(settings, tokenizer, 0, on_cpu=True)
    known = CLIPTokenizer.from_pretrained(EMBEDDED / "clip")
    theirs = CLIPModel.from_pretrained(EMBEDDED / "clip")
    assert torch.equal(parts.clip.visual_projection.weight, theirs.visual_projection.weight)
    mine = parts.clip.text_model.embeddings.token_embedding.weight
    assert len(mine) == len(tokenizer)
    old = theirs.text_model.embeddings.token_embedding.weight
    for word in ("gravel</w>", "photo</w>"):
        assert torch.equal(mine[tokenizer.get_vocab()[word]], old[known.get_vocab()[word]])
    assert "cog</w>" in tokenizer.get_vocab() and "cog</w>" not in known.get_vocab()
    assert parts.unet.config.sample_size == 8 and parts.vae.config.latent_channels == 16


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"start": "embedded", "side": 64}, ConfigError, "draws images of 32 pixels"),
        ({"start": "embedded", "denoiser": {"widths": [16, 32]}}, ConfigError, "denoiser.widths"),
        ({"start": "/nowhere"}, ModelError, "^pretraining.start: no folder /nowhere"),
        ({"start": "owner/model"}, ModelError, "^pretraining.start: no folder owner/model"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(settings, kind, said):
    with pytest.raises(kind, match=said) as refused:
        check_start(PretrainingConfig.model_validate(settings))
    assert "Fix: " in str(refused.value)


def test_a_base_that_predicts_noise_is_refused(tmp_path):
    for name, content in (
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}),
        ("vae/config.json", {"block_out_channels": [8, 8, 8]}),
        ("unet/config.json", {"sample_size": 8}),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    given = PretrainingConfig(start=str(tmp_path))
    with pytest.raises(ModelError, match=r"no clip/config\.json"):
        check_start(given)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"predicts epsilon; expected flow_prediction"):
        check_start(given)


def test_batches_that_workers_cannot_divide_are_refused():
    check_workers(PretrainingConfig(), ResourcesConfig(workers=2, gpus_per_worker=1))
    with pytest.raises(
        ConfigError, match=r"clip.batch_size: 128 .* pretraining.clip.batch_size=129"
    ):
        check_workers(PretrainingConfig(), ResourcesConfig(workers=3))


@pytest.mark.parametrize(
    "setting", ["autoencoder.widths=[12, 16]", "denoiser.widths=[8, 16]", "side=48"]
)
def test_sizes_that_no_network_has_are_refused(setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        load_config([], [f"pretraining.{setting}"])


def test_workers_on_one_gpu_and_more_levels_than_pixels_are_refused():
    with pytest.raises(ConfigError, match="cannot share a GPU"):
        check_workers(PretrainingConfig(), ResourcesConfig(workers=2, gpus_per_worker=0.5))
    check_sizes(PretrainingConfig(side=64))
    deep = {"denoiser": {"widths": [16, 16, 16, 16]}}
    with pytest.raises(ConfigError, match="halve 32 pixels to 1; expected 2"):
        check_sizes(PretrainingConfig.model_validate(deep))
