"""Write the tiny base as others load it: a StableDiffusionPipeline folder and a CLIPModel folder.

Weights are bfloat16 safetensors; the configs say float32, so that `from_pretrained` widens them and
all parts agree. Files replace their predecessors one by one and whole, so a reader never sees half
a file.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pretraining.clip import IMAGE_MEAN, IMAGE_STD
from raysynth.pretraining.export import declare_float32, sampler, text_tower

Module = TypeVar("Module", bound=torch.nn.Module)


def export(
    out: Path,
    vae: AutoencoderKL,
    clip: CLIPModel,
    unet: UNet2DConditionModel,
    tokenizer: CLIPTokenizer,
) -> int:
    """Write everything to `out`; the number of bytes written."""
    pipeline = StableDiffusionPipeline(
        vae=_narrowed(vae),
        text_encoder=_narrowed(text_tower(clip)),
        tokenizer=tokenizer,
        unet=_narrowed(unet),
        scheduler=sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=size, image_mean=IMAGE_MEAN, image_std=IMAGE_STD
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tiny-") as folder:
        fresh = Path(folder)
        pipeline.save_pretrained(fresh, safe_serialization=True)
        _narrowed(clip).save_pretrained(fresh / "clip")
        CLIPProcessor(images, tokenizer).save_pretrained(fresh / "clip")
        for config in (fresh / "clip" / "config.json", fresh / "text_encoder" / "config.json"):
            declare_float32(config)
        return _move_files(fresh, out)


def _narrowed(module: Module) -> Module:
    """A bfloat16 copy."""
    return copy.deepcopy(module).to(torch.bfloat16)


def _move_files(fresh: Path, out: Path) -> int:
    """Rename every file of `fresh` over its namesake in `out`; their size in bytes."""
    total = 0
    for source in sorted(path for path in fresh.rglob("*") if path.is_file()):
        target = out / source.relative_to(fresh)
        target.parent.mkdir(parents=True, exist_ok=True)
        total += source.stat().st_size
        source.chmod(0o644)
        source.replace(target)
    return total
