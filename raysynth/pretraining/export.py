"""A base as others load it: a StableDiffusionPipeline's folder, and its CLIP below `clip/`.

Weights are bfloat16 safetensors; the configurations say float32, so that `from_pretrained` widens
them and all parts agree.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from raysynth.pretraining.clip import IMAGE_MEAN, IMAGE_STD
from raysynth.storage.files import make_folder, write_atomic


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The pair's text tower as the pipeline's text encoder."""
    encoder = CLIPTextModel(clip.config.text_config)
    encoder.load_state_dict(clip.text_model.state_dict())
    return encoder.eval().requires_grad_(False)


def sampler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on the rectified flow's path: 5 to 8 steps suffice."""
    return DPMSolverMultistepScheduler(
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        flow_shift=1.0,
        steps_offset=1,
    )


def pipeline_of(
    clip: CLIPModel, vae: AutoencoderKL, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as one pipeline, without a bar of its own."""
    found = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_tower(clip),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    found.set_progress_bar_config(disable=True)
    return found


def export(
    folder: str,
    clip: CLIPModel,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    tokenizer: CLIPTokenizer,
) -> int:
    """Write a base to a folder or URI, file by file, each whole; the number of bytes written."""
    # Here: as they are imported they say on standard error that torchvision is missing.
    from transformers import CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip, vae, unet = (_narrowed(part) for part in (clip, vae, unet))
    side = clip.config.vision_config.image_size
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
    with tempfile.TemporaryDirectory(prefix="raysynth-base-") as temporary:
        fresh = Path(temporary)
        pipeline = pipeline_of(clip, vae, unet, tokenizer)
        pipeline.text_encoder.to(torch.bfloat16)
        pipeline.save_pretrained(fresh, safe_serialization=True)
        clip.save_pretrained(fresh / "clip")
        CLIPProcessor(images, tokenizer).save_pretrained(fresh / "clip")
        for config in (fresh / "clip" / "config.json", fresh / "text_encoder" / "config.json"):
            declare_float32(config)
        return _put(fresh, folder)


def _narrowed(module: Any) -> Any:
    """A bfloat16 copy on the CPU."""
    return copy.deepcopy(module).to("cpu", torch.bfloat16)


def declare_float32(config: Path) -> None:
    """Say float32 wherever a transformers config names its dtype."""
    content = json.loads(config.read_text())
    for part in (content, content.get("text_config", {}), content.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = "float32"
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _put(fresh: Path, folder: str) -> int:
    total = 0
    for source in sorted(path for path in fresh.rglob("*") if path.is_file()):
        target = f"{folder}/{source.relative_to(fresh).as_posix()}"
        data = source.read_bytes()
        make_folder(target.rpartition("/")[0])
        write_atomic(target, data)
        total += len(data)
    return total
