"""What the tiny base must reach, measured on garments no training saw."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from pretraining.clip import zero_shot
from pretraining.judge import Judge
from pretraining.photographs import BASE, BaseGarments, compose, sample_grounds
from pretraining.words import GROUNDS
from raysynth.datasets.garments import CLASSES, PHOTOGRAPHS
from raysynth.datasets.outfits import Outfits

_PULLOVER, _COAT = CLASSES.index("pullover"), CLASSES.index("coat")
_GUIDANCE, _STEPS = 3.0, 8
_PER_PROMPT = 40


@dataclass(frozen=True)
class Bar:
    """One measured number and what it must reach (None: only printed)."""

    name: str
    value: float
    least: float | None = None

    def __str__(self) -> str:
        verdict = "" if self.least is None else f"  bar {self.least:.3f}  "
        if self.least is not None:
            verdict += "reached" if self.value >= self.least else "MISSED"
        return f"{self.name:<58} {self.value:8.3f}{verdict}"


def measure(folder: Path, base: BaseGarments, judge: Judge, sheet: Path) -> Iterator[Bar]:
    """All bars of the exported base in `folder`; a contact sheet of samples goes to `sheet`."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    clip = CLIPModel.from_pretrained(folder / "clip").eval()
    dice = torch.Generator().manual_seed(1)
    grounds = sample_grounds(len(base.held_out), dice)
    images, coverage = compose(base.cutouts[base.held_out], grounds, BASE, dice)
    labels = base.labels[base.held_out]
    yield from _autoencoder(pipeline, judge, images, coverage, labels)
    yield from _clip_on_base(clip, pipeline.tokenizer, images, labels, grounds)
    yield from _clip_on_outfits(clip, pipeline.tokenizer, judge)
    yield from _samples(pipeline, clip, judge, sheet)


@torch.no_grad()
def _autoencoder(
    pipeline: StableDiffusionPipeline,
    judge: Judge,
    images: Tensor,
    coverage: Tensor,
    labels: Tensor,
) -> Iterator[Bar]:
    vae = pipeline.vae
    parts = [vae.decode(vae.encode(x * 2 - 1).latent_dist.mode()).sample for x in images.split(256)]
    decoded = (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
    error = (decoded - images).square()
    everywhere = -10 * error.mean().log10().item()
    garment = -10 * ((error * coverage).sum() / (3 * coverage.sum())).log10().item()
    yield Bar("autoencoder, held-out base images, PSNR (dB)", everywhere, 30)
    yield Bar("autoencoder, their garment pixels, PSNR (dB)", garment, 30)
    before = _share(judge.verdict(images)[0] == labels)
    after = _share(judge.verdict(decoded)[0] == labels)
    yield Bar("judge, garment of ten, held-out originals", before)
    yield Bar("judge, garment of ten, their reconstructions", after, before - 0.02)


def _clip_on_base(
    clip: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, labels: Tensor, grounds: Tensor
) -> Iterator[Bar]:
    seen = zero_shot(clip, tokenizer, images, [f"a photo of a {name}" for name in CLASSES])
    yield Bar("CLIP zero-shot, held-out base images, garment of ten", _share(seen == labels), 0.80)
    pair = (labels == _PULLOVER) | (labels == _COAT)
    seen = zero_shot(clip, tokenizer, images[pair], ["a photo of a pullover", "a photo of a coat"])
    right = _share(seen == (labels[pair] == _COAT).long())
    yield Bar("CLIP zero-shot, held-out base images, pullover or coat", right, 0.85)
    prompts = [f"a photo of {_ground_words(number)}" for number in range(len(GROUNDS))]
    right = _share(zero_shot(clip, tokenizer, images, prompts) == grounds)
    yield Bar("CLIP zero-shot, held-out base images, ground of eleven", right, 0.98)


def _clip_on_outfits(clip: CLIPModel, tokenizer: CLIPTokenizer, judge: Judge) -> Iterator[Bar]:
    outfits = Outfits()
    rows = outfits.listing()
    rows = rows.filter(np.array(rows["split"].to_pylist()) == "test")
    images = torch.stack([_pixels(png) for png in outfits.images(rows)])
    labels = torch.tensor(rows["label"].to_pylist())
    attributes = torch.tensor(rows["attribute"].to_pylist())
    garments = torch.tensor([_PULLOVER, _COAT])[labels]
    prompts = [f"a photo of a {name}" for name in outfits.label_words]
    seen = zero_shot(clip, tokenizer, images, prompts)
    yield Bar("CLIP zero-shot, outfits test, pullover or coat", _share(seen == labels))
    for label, attribute in ((0, 0), (0, 1), (1, 0), (1, 1)):
        group = (labels == label) & (attributes == attribute)
        name = f"{outfits.pair[label]} on {outfits.attributes[attribute]}"
        yield Bar(f"  of these, {name}", _share(seen[group] == label))
    seen = zero_shot(clip, tokenizer, images, [f"a photo of a {name}" for name in CLASSES])
    yield Bar("CLIP zero-shot, outfits test, garment of ten", _share(seen == garments))
    prompts = [f"a photo of {name}" for name in outfits.attribute_words]
    seen = zero_shot(clip, tokenizer, images, prompts)
    yield Bar("CLIP zero-shot, outfits test, grass or gravel", _share(seen == attributes))
    yield Bar("judge, outfits test, garment of ten", _share(judge.verdict(images)[0] == garments))


def _samples(
    pipeline: StableDiffusionPipeline, clip: CLIPModel, judge: Judge, sheet: Path
) -> Iterator[Bar]:
    """Judge `vanilla` samples of every garment on the photographs' grounds and on white."""
    grounds = [*range(len(PHOTOGRAPHS)), GROUNDS.index("white")]
    garment_right, ground_right, rows = [], [], []
    for garment, name in enumerate(CLASSES):
        prompts = [f"a photo of a {name} on {_ground_words(ground)}" for ground in grounds]
        images = _generate(pipeline, prompts, seed=garment)
        seen_garment, seen_ground = judge.verdict(images)
        truth = torch.tensor(grounds).repeat_interleave(_PER_PROMPT)
        garment_right.append(seen_garment == garment)
        ground_right.append(seen_ground == truth)
        rows.append(torch.cat([part[:6] for part in images.split(_PER_PROMPT)]))
    _write_sheet(rows, sheet)
    garments, places = torch.stack(garment_right), torch.stack(ground_right)
    yield Bar("judge on vanilla samples, garment of ten", _share(garments), 0.90)
    yield Bar("judge on vanilla samples, ground of eleven", _share(places), 0.90)
    yield Bar("judge on vanilla samples, both", _share(garments & places))
    for number, name in enumerate(CLASSES):
        least = 0.80 if number in (_PULLOVER, _COAT) else None
        yield Bar(f"judge on vanilla samples, {name}", _share(garments[number]), least)


def _generate(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> Tensor:
    """Images [len(prompts) * _PER_PROMPT, 3, 32, 32] in 0..1, prompt by prompt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16):
        images = pipeline(
            [prompt for prompt in prompts for _ in range(_PER_PROMPT)],
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=generator,
            height=32,
            width=32,
            output_type="np",
        ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def _write_sheet(rows: list[Tensor], path: Path) -> None:
    """A contact sheet, one row per class, four times enlarged."""
    lines = [torch.cat(list(row), dim=2) for row in rows]
    pixels = (torch.cat(lines, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
    image = Image.fromarray(pixels)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def _pixels(png: bytes) -> Tensor:
    """PNG bytes as [3, 32, 32] in 0..1."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1).float() / 255


def _ground_words(ground: int) -> str:
    name = GROUNDS[ground]
    return name if name in PHOTOGRAPHS else f"a plain {name} background"


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
