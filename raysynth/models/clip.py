"""The CLIP that embeds and scores: images and texts in one space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raysynth.models.device import autocast, pick_device, pick_dtype, weight_dtype
from raysynth.models.latents import PIXELS_AT_ONCE
from raysynth.models.loading import (
    complete,
    frozen,
    limit_tokenizer,
    load_or_explain,
    plain_attention,
    quiet_transformers,
)
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_clip, pixel_statistics, resolve, variant_of

Embed = Callable[[np.ndarray], np.ndarray]
"""[N, H, W, 3] uint8 images -> [N, D] float32 embeddings of length one."""


@dataclass(frozen=True)
class Clip:
    """CLIP image and text towers and the pixel statistics that its images are prepared with."""

    model: Any
    tokenizer: Any
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def images(self, pixels: np.ndarray) -> np.ndarray:
        """[N, D] float32 L2-normalised embeddings of [N, H, W, 3] uint8 images."""
        return self.embed(self.prepare(pixels))

    @torch.inference_mode()
    def prepare(self, pixels: np.ndarray) -> Tensor:
        """[N, 3, S, S] what the model sees of [N, H, W, 3] uint8 images.

        As many at once as `PIXELS_AT_ONCE` allows: as floats, photographs are large.
        """
        each = max(1, PIXELS_AT_ONCE // max(1, pixels.shape[1] * pixels.shape[2]))
        starts = range(0, max(1, len(pixels)), each)
        parts = (np.ascontiguousarray(pixels[start : start + each]) for start in starts)
        return torch.cat([self._prepare(torch.from_numpy(part)) for part in parts])

    @torch.inference_mode()
    def embed(self, prepared: Tensor) -> np.ndarray:
        """[N, D] float32 L2-normalised embeddings of prepared images."""
        with autocast(self.device, self.dtype):
            features = self.model.get_image_features(pixel_values=prepared.to(self._weights))
        return normalised(features)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32 L2-normalised embeddings of texts."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(
            self.device
        )
        with autocast(self.device, self.dtype):
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        return normalised(features)

    @property
    def _weights(self) -> torch.dtype:
        return self.model.visual_projection.weight.dtype

    def _prepare(self, pixels: Tensor) -> Tensor:
        """CLIP's own preprocessing, for a batch: resize, centre crop, normalise."""
        x_NCHW = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        height, width = x_NCHW.shape[2:]
        if min(height, width) != self.size:
            scale = self.size / min(height, width)
            # Never a pixel short: 55 * (224 / 55) is below 224.
            target = tuple(max(self.size, int(side * scale)) for side in (height, width))
            x_NCHW = F.interpolate(x_NCHW, target, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (x_NCHW.shape[2] - self.size) // 2, (x_NCHW.shape[3] - self.size) // 2
        x_NCHW = x_NCHW[:, :, top : top + self.size, left : left + self.size]
        mean, std = (torch.tensor(v, device=self.device) for v in (self.mean, self.std))
        return (x_NCHW - mean[:, None, None]) / std[:, None, None]


def load_clip(base: BaseConfigSection) -> Clip:
    """Load the CLIP that embeds and scores, frozen and in eval mode; raises ModelError."""
    check_clip(base, weights=False)
    source, device = resolve(base.clip, clip=True), pick_device(base.device)
    transformers, dtype = quiet_transformers(), pick_dtype(base.dtype, device)
    hub = {} if os.path.isdir(source) else {"revision": base.clip_revision}
    options = hub | {
        "use_safetensors": True,
        "variant": variant_of(Path(source)),
        "dtype": weight_dtype(dtype, device),
        "attn_implementation": "eager" if plain_attention(base, device) else "sdpa",
        "ignore_mismatched_sizes": True,  # `complete` names them
        "output_loading_info": True,
    }
    load = transformers.CLIPModel.from_pretrained
    loaded = load_or_explain("base.clip", source, lambda: load(source, **options))
    model = complete("base.clip", source, loaded)
    read = transformers.CLIPTokenizer.from_pretrained
    tokenizer = load_or_explain("base.clip: tokenizer", source, lambda: read(source, **hub))
    limit_tokenizer(tokenizer, model.config.text_config)
    settings = load_or_explain(
        "base.clip: preprocessor", source, lambda: _image_settings(source, hub)
    )
    mean, std = pixel_statistics("base.clip", settings, source)
    return Clip(
        model=frozen(model, device),
        tokenizer=tokenizer,
        size=model.config.vision_config.image_size,
        mean=mean,
        std=std,
        device=device,
        dtype=dtype,
    )


def of_planes(images: Embed, pixels: np.ndarray, batch: int) -> np.ndarray:
    """[N, D] embeddings of [N, 3, H, W] uint8 images, `batch` at once."""
    starts = range(0, len(pixels), batch)
    parts = [images(pixels[start : start + batch].transpose(0, 2, 3, 1)) for start in starts]
    return np.concatenate(parts)


def normalised(features: Any) -> np.ndarray:
    """[N, D] float32 rows of length one, of a tensor or a transformers output."""
    tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(tensor.float(), dim=-1).cpu().numpy()


def _image_settings(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    from transformers.image_processing_base import ImageProcessingMixin

    return ImageProcessingMixin.get_image_processor_dict(source, **hub)[0]
