"""The shipped tiny base loads as any Stable Diffusion and CLIP do, and its pretraining resumes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPProcessor

import raysynth.models
from pretraining.clip import zero_shot
from pretraining.loop import Plan, restore, train
from pretraining.photographs import BASE, OUTFITS_LIKE, WILD, Look, compose
from pretraining.words import COLOURS, GROUNDS, MAX_LENGTH, all_meanings, build_tokenizer, captions
from raysynth.datasets.garments import CLASSES
from raysynth.pretraining.loop import warm_then_decay

TINY = Path(raysynth.models.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(TINY)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int = 0) -> torch.Tensor:
    """Images [B, 3, 32, 32] in 0..1."""
    images = pipeline(
        prompts,
        num_inference_steps=5,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images
    return images


def test_everything_fits_in_14_megabytes_of_bfloat16_safetensors() -> None:
    files = [path for path in TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 14_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for weights in TINY.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(weights).values()} <= {
            torch.bfloat16,
            torch.int64,
        }


def test_a_plain_pipeline_makes_32_pixel_images(pipeline: StableDiffusionPipeline) -> None:
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {
        torch.float32
    }
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    prompts = ["a photo of a pullover on grass", "a photo of a coat on gravel"]
    images = sample(pipeline, prompts)
    assert images.shape == (2, 3, 32, 32)
    assert images.std() > 0.1
    assert torch.equal(images, sample(pipeline, prompts))
    assert not torch.equal(images, sample(pipeline, prompts, seed=1))


def test_clip_recognises_what_the_pipeline_draws(pipeline: StableDiffusionPipeline) -> None:
    clip = CLIPModel.from_pretrained(TINY / "clip").eval()
    names = ["pullover", "trousers", "bag", "coat"]
    prompts = [f"a photo of a {name} on grass" for name in names for _ in range(8)]
    garments = [f"a photo of a {name}" for name in names]
    seen = zero_shot(clip, pipeline.tokenizer, sample(pipeline, prompts), garments)
    right = seen == torch.arange(len(names)).repeat_interleave(8)
    assert right.float().mean() > 0.6


def test_clip_and_processor_load_as_any_clip() -> None:
    clip = CLIPModel.from_pretrained(TINY / "clip").eval()
    processor = CLIPProcessor.from_pretrained(TINY / "clip")
    image = np.full((32, 32, 3), 128, np.uint8)
    batch = processor(
        text=["a photo of a coat", "grass"],
        images=[image],
        return_tensors="pt",
        padding="max_length",
    )
    assert batch["input_ids"].shape == (2, MAX_LENGTH)
    assert clip(**batch).logits_per_image.shape == (1, 2)


def test_pipeline_text_encoder_is_clips_text_tower(pipeline: StableDiffusionPipeline) -> None:
    clip = CLIPModel.from_pretrained(TINY / "clip")
    tower, encoder = clip.text_model.state_dict(), pipeline.text_encoder.state_dict()
    assert tower.keys() == encoder.keys()
    assert all(torch.equal(tower[name], encoder[name]) for name in tower)


def test_latents_are_centred_and_scaled(pipeline: StableDiffusionPipeline) -> None:
    dice = torch.Generator().manual_seed(0)
    grounds = torch.randint(0, 3, (64,), generator=dice)
    images, _ = compose(_squares(64), grounds, BASE, dice)
    with torch.no_grad():
        latents = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
    assert pipeline.vae.config.scaling_factor == 1.0
    assert latents.mean().abs() < 0.3
    assert 0.6 < latents.std() < 1.5


def test_tokenizer_knows_caption_words_and_any_bytes(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = pipeline.tokenizer
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    for word in ("sks", "pullover", "coat", "grass", "gravel", "background", "ankle", "photo"):
        assert len(tokenizer.tokenize(word)) == 1
    odd = "Zebra & Ω on 7 moons"
    numbers = tokenizer(odd, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in numbers[:-1]
    assert tokenizer.decode(numbers).replace(" ", "") == odd.lower().replace(" ", "")
    assert tokenizer.model_max_length == MAX_LENGTH


def test_every_meaning_has_captions_that_name_it_and_fit() -> None:
    tokenizer = build_tokenizer()
    assert len(all_meanings()) == len(CLASSES) * len(GROUNDS) + len(CLASSES) + len(GROUNDS)
    for garment, ground in all_meanings():
        for text in captions((garment, ground)):
            assert garment is None or CLASSES[garment] in text
            assert ground is None or GROUNDS[ground] in text
            assert len(tokenizer(text).input_ids) <= MAX_LENGTH


@pytest.mark.parametrize("look", [BASE, WILD, OUTFITS_LIKE])
def test_compositions_are_seeded_images(look: Look) -> None:
    grounds = torch.arange(len(GROUNDS))
    one, coverage = compose(_squares(len(GROUNDS)), grounds, look, torch.Generator().manual_seed(3))
    other, _ = compose(_squares(len(GROUNDS)), grounds, look, torch.Generator().manual_seed(3))
    assert torch.equal(one, other)
    assert one.shape == (len(GROUNDS), 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    assert coverage[:, 0, 16, 16].min() > 0.9 and coverage[:, 0, 0, 0].max() < 0.1
    red = one[3 + list(COLOURS).index("red"), :, 1, 1]
    assert red[0] > red[1] and red[0] > red[2]


def test_loop_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = _fit(Plan("toy", 6, tmp_path / "whole", 0))
    _fit(Plan("toy", 3, tmp_path / "cut", 0))
    resumed = _fit(Plan("toy", 6, tmp_path / "cut", 0))
    assert torch.equal(whole, resumed)
    assert restore(Plan("toy", 6, tmp_path / "cut", 0), {}) == 6


def test_loop_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="toy: loss is nan at step 1"):
        train(Plan("toy", 2, tmp_path, 0), {}, lambda dice: {"loss": float("nan")})


def test_rate_warms_up_and_decays() -> None:
    factor = warm_then_decay(1000, 0.4)
    rates = [factor(step) for step in range(1000)]
    assert rates[0] == 0.01 and rates[99:600] == [1.0] * 501 and rates[-1] < 0.01
    assert all(late <= early for early, late in pairwise(rates[600:]))


def test_model_index_names_no_safety_checker() -> None:
    index = json.loads((TINY / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]


def _squares(count: int) -> torch.Tensor:
    """Gray squares as cut-outs, uint8 [count, 2, 28, 28]."""
    cutouts = torch.zeros(count, 2, 28, 28, dtype=torch.uint8)
    cutouts[:, 0, 4:24, 4:24] = 160
    cutouts[:, 1, 4:24, 4:24] = 255
    return cutouts


def _fit(plan: Plan) -> torch.Tensor:
    """Fit a line to random points; the weights at the end."""
    torch.manual_seed(0)
    line = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)

    def step(dice: torch.Generator) -> dict[str, float]:
        points = torch.randn(8, 2, generator=dice)
        loss = (line(points) - points.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    train(plan, {"line": line, "optimizer": optimizer}, step)
    return line.weight.detach().clone()
