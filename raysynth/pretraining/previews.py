"""Strips of images while a base is made: what comes back of held-out images; what it draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from raysynth.pretraining.export import pipeline_of
from raysynth.pretraining.making import Making
from raysynth.storage.files import make_folder, write_atomic
from raysynth.storage.marks import Maker
from raysynth.strips import Strip, captioned, mosaic, png

STEPS, GUIDANCE = 8, 3.0
"""Of samples, here and for the bars."""
SHOWN, MOST_ROWS = 8, 12
DRAWN_AT_ONCE = 64


def keep_beside(making: Making, stage: str, done: int, one: Tensor, other: Tensor) -> None:
    """Images [B, 3, S, S] in 0..1 above what came back of them."""
    strips = [("held out", _pictures(one, made=False)), ("came back", _pictures(other))]
    _keep(making, stage, done, strips)


def keep_samples(
    making: Making, done: int, clip: CLIPModel, vae: AutoencoderKL, unet: UNet2DConditionModel
) -> None:
    """What a denoiser draws now, a strip for each of some prompts."""
    strips = [
        (prompt or "(no prompt)", _pictures(images))
        for prompt, images in zip(
            prompts_of(making)[:MOST_ROWS],
            samples(making, clip, vae, unet, prompts_of(making)[:MOST_ROWS], SHOWN),
            strict=True,
        )
    ]
    _keep(making, "denoiser", done, strips)


def prompts_of(making: Making) -> list[str]:
    """A prompt for each group or label; of own captions some held-out ones; else the empty one."""
    captions, groups = making.material.captions, making.material.groups
    if groups is not None:
        both = [each for each in captions.concepts if min(each) >= 0]
        return [captions.first(each) for each in both or captions.concepts]
    if captions.said:
        labels = making.material.label[making.material.measured].unique()[:MOST_ROWS]
        return [captions.first((int(label), -1)) for label in labels]
    return [""]


@torch.no_grad()
def samples(
    making: Making,
    clip: CLIPModel,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    prompts: Sequence[str],
    count: int,
) -> list[Tensor]:
    """[count, 3, S, S] in 0..1 for each prompt; the same noise whoever asks."""
    training = unet.training
    pipeline = pipeline_of(clip, vae, unet.eval(), making.tokenizer)
    pipeline.text_encoder.to(making.crew.device)
    found = []
    for number, prompt in enumerate(prompts):
        dice = torch.Generator().manual_seed(1000 * making.seed + number)
        parts = []
        for start in range(0, count, DRAWN_AT_ONCE):
            wanted = min(DRAWN_AT_ONCE, count - start)
            with making.crew.autocast():
                drawn = pipeline(
                    [prompt] * wanted,
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE if prompt else 1.0,
                    generator=dice,
                    height=making.settings.side,
                    width=making.settings.side,
                    output_type="np",
                ).images
            parts.append(torch.from_numpy(drawn).permute(0, 3, 1, 2).float())
        found.append(torch.cat(parts))
    unet.train(training)
    return found


def _pictures(images: Tensor, *, made: bool = True) -> list[Image.Image]:
    pixels = (images.cpu().permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    pictures = [Image.fromarray(np.ascontiguousarray(each)) for each in pixels]
    if made:
        for picture in pictures:
            picture.info["xmp"] = Maker().packet()
    return pictures


def _keep(
    making: Making, stage: str, done: int, strips: Sequence[tuple[str, list[Image.Image]]]
) -> None:
    shown = [Strip(title, len(images), mosaic(images, most=12)) for title, images in strips]
    data = png(captioned(f"{stage}, step {done:,}", shown))
    make_folder(f"{making.folder}/previews")
    write_atomic(f"{making.folder}/previews/{stage}-{done:06d}.png", data)
