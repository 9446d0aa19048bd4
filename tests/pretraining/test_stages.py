"""Stages on tiny settings: resuming, several workers, what is exported, what is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from raysynth.finetune.term import terms_of
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.settings import BaseConfigSection
from raysynth.pretraining import autoencoder, denoiser
from raysynth.pretraining.clip import contrastive_loss
from raysynth.pretraining.crew import Crew
from raysynth.pretraining.stages import make_base
from raysynth.pretraining.start import begin
from tests.pretraining.conftest import CPU, open_making

TWO = [Crew(CPU.device, CPU.dtype, rank, 2) for rank in (0, 1)]


def gradient(module):
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def test_the_contrastive_loss_is_a_cross_entropy_where_one_text_fits():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    right = torch.tensor([0, 2, 1, 2])
    fits = F.one_hot(right, 3).bool()
    to_image = [logits.log_softmax(0)[right == n, n].mean() for n in range(3)]
    expected = F.cross_entropy(logits, right) - 0.2 * torch.stack(to_image).mean()
    assert torch.allclose(contrastive_loss(logits, fits, [(3, 1.0)]), expected)
    none = torch.zeros(4, 2, dtype=torch.bool)
    wider = torch.cat([logits, logits[:, :2]], 1)
    both = contrastive_loss(wider, torch.cat([fits, none], 1), [(3, 1.0), (2, 1.0)])
    assert torch.isfinite(both)


@pytest.mark.parametrize("asked", ["[]", "[cbdm, coind]"])
def test_the_mean_of_two_workers_gradients_is_that_of_one(order, asked):
    making = open_making(order(f"pretraining.denoiser.terms={asked}"))
    parts = begin(making.settings, making.tokenizer, 0, on_cpu=True)
    unet, vae = parts.unet, parts.vae.eval()
    given = (denoiser.cache_latents(making, vae), denoiser.States(making, parts.clip))
    added = terms_of(making.settings.denoiser)

    def found(crew):
        unet.zero_grad()
        own = replace(making, crew=crew)
        says = denoiser.denoiser_of(own, unet)
        dice = torch.Generator().manual_seed(3)
        denoiser.batch_loss(own, says, added, *given, dice).backward()
        return gradient(unet)

    halves = [found(crew) for crew in TWO]
    assert not torch.allclose(halves[0], halves[1])
    assert torch.allclose(sum(halves) / 2, found(CPU), atol=1e-6)


def test_a_training_that_was_stopped_ends_with_the_same_weights(order, tmp_path, monkeypatch):
    making = open_making(order("pretraining.preview_steps=2"))

    def trained(own):
        vae = begin(own.settings, own.tokenizer, 0, on_cpu=True).vae
        return autoencoder.train_autoencoder(own, vae).state_dict()

    monkeypatch.setattr(autoencoder, "NORMALISED_ON", 32)
    whole = trained(making)
    other = replace(making, folder=str(tmp_path / "other"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raysynth.pretraining.loop.SAVE_SECONDS", 0.0)
        seen = []

        def told(stage, done, total, losses):
            seen.append(done)
            if done == 3:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            trained(replace(other, told=told))
    again = []
    resumed = trained(replace(other, told=lambda stage, done, *_: again.append(done)))
    assert seen == [1, 2, 3] and again == [3, 4], "two steps were kept"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "other" / "previews" / "autoencoder-000004.png").exists()
    finished = []
    trained(replace(other, told=lambda *given: finished.append(given)))
    assert not finished, "a finished stage takes no step"


@pytest.mark.slow
def test_a_base_loads_elsewhere_and_in_raysynth_and_says_what_it_reaches(order, tmp_path):
    from diffusers import StableDiffusionPipeline

    given = order()
    bars = make_base(given, CPU, lambda *_: None)
    pipeline = StableDiffusionPipeline.from_pretrained(given.exported)
    image = pipeline("a photo of a red on day", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 32, 32, 3)
    own = BaseConfigSection(name=given.exported, clip=f"{given.exported}/clip", dtype="float32")
    base, clip = load_base(own), load_clip(own)
    assert tuple(base.latent_shape) == (4, 8, 8)
    texts = clip.texts(["a photo of a red", "a photo of a blue"])
    assert texts.shape == (2, 16) and abs(texts[0] - texts[1]).max() > 0
    told = json.loads((tmp_path / "base" / "bars.json").read_text())
    assert [bar["name"] for bar in told["bars"]] == [bar.name for bar in bars]
    said = " ".join(bar.name for bar in bars)
    assert all(word in said for word in ("PSNR", "zero-shot", "judge, samples, label"))


@pytest.mark.slow
@pytest.mark.parametrize("captions", ["column", "none"])
def test_own_captions_or_none_make_a_base_too(order, captions):
    given = order("dataset.name=folder", f"pretraining.captions={captions}")
    said: list[str] = []
    bars = [bar.name for bar in make_base(given, CPU, lambda *_: None, said.append)]
    assert any("PSNR" in name for name in bars)
    assert not said, "no caption is cut"
    assert any("its caption of" in name for name in bars) == (captions == "column")
    own = BaseConfigSection(name=given.exported, clip=f"{given.exported}/clip", dtype="float32")
    load_base(own)
