"""One way to load base models: a hub id, a folder or `embedded`, all the same.

What loads imports diffusers and transformers, which take seconds and 0.3 GB: the driver of a run
names what is loaded in its workers, and loads nothing itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from raysynth.errors import ConfigError, ModelError
from raysynth.models.architecture import FAULTS, refuse_random
from raysynth.models.device import pick_device, pick_dtype, weight_dtype
from raysynth.models.headers import reason_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import (
    check_base,
    check_clip,
    pixel_statistics,
    resolve,
    vae_factor,
    variant_of,
)

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
PIXELS_AT_ONCE = 2**20
"""What an autoencoder is given at once, four images of 512 x 512: 64 of them took 30 GB in bfloat16
(Stable Diffusion 1.5's encoder, measured on an H100)."""


@dataclass(frozen=True)
class Base:
    """A text-to-image base model, frozen, in eval mode; parts that were not asked for are None.

    `dtype` is the compute precision: run the models inside `autocast()`.
    """

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler: Any
    latent_shape: tuple[int, int, int]
    """Channels, height and width of the model's own latents (known without the UNet's weights)."""
    image_size: int
    """Side of the model's own images, pixels."""
    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the models run at `dtype`."""
        return autocast(self.device, self.dtype)


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


def load_base(base: BaseConfigSection, parts: Sequence[str] = PARTS) -> Base:
    """Load (parts of) the base model onto the configured device, frozen and in eval mode.

    Weights come from safetensors only. Raises ModelError when a part is missing or does not load.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    check_base(base, weights=False)
    source, device = resolve(base.name), pick_device(base.device)
    transformers = quiet_transformers()
    dtype = pick_dtype(base.dtype, device)
    plain = _plain_attention(base, device)
    hub = {} if os.path.isdir(source) else {"revision": base.revision}
    number = weight_dtype(dtype, device)

    def weights(part: str, loader: Callable[..., Any], **options: Any) -> Any:
        variant = variant_of(Path(source) / part)
        files = {"subfolder": part, "use_safetensors": True, "variant": variant, **hub}
        found = loader(source, output_loading_info=True, **files, **options)
        return complete(f"base.name: {part}", source, found)

    loaders: dict[str, Callable[[], Any]] = {
        "tokenizer": lambda: transformers.CLIPTokenizer.from_pretrained(
            source, subfolder="tokenizer", **hub
        ),
        "text_encoder": lambda: weights(
            "text_encoder",
            transformers.CLIPTextModel.from_pretrained,
            dtype=number,
            attn_implementation="eager" if plain else "sdpa",
            ignore_mismatched_sizes=True,  # `complete` names them
        ),
        "vae": lambda: weights("vae", AutoencoderKL.from_pretrained, torch_dtype=number),
        "unet": lambda: weights("unet", UNet2DConditionModel.from_pretrained, torch_dtype=number),
        "scheduler": lambda: load_scheduler(source, hub),
    }
    loaded = {
        part: frozen(load_or_explain(f"base.name: {part}", source, loaders[part]), device, plain)
        if part in parts
        else None
        for part in PARTS
    }
    if loaded["tokenizer"] is not None and loaded["text_encoder"] is not None:
        _limit(loaded["tokenizer"], loaded["text_encoder"].config)
    shape, side = load_or_explain("base.name: unet and vae", source, lambda: _sizes(source, hub))
    return Base(**loaded, latent_shape=shape, image_size=side, device=device, dtype=dtype)


def load_clip(base: BaseConfigSection) -> Clip:
    """Load the CLIP that embeds and scores, frozen and in eval mode; raises ModelError."""
    check_clip(base, weights=False)
    source, device = resolve(base.clip, clip=True), pick_device(base.device)
    transformers = quiet_transformers()
    dtype = pick_dtype(base.dtype, device)
    plain = _plain_attention(base, device)
    hub = {} if os.path.isdir(source) else {"revision": base.clip_revision}
    loaded = load_or_explain(
        "base.clip",
        source,
        lambda: transformers.CLIPModel.from_pretrained(
            source,
            use_safetensors=True,
            variant=variant_of(Path(source)),
            dtype=weight_dtype(dtype, device),
            attn_implementation="eager" if plain else "sdpa",
            ignore_mismatched_sizes=True,  # `complete` names them
            output_loading_info=True,
            **hub,
        ),
    )
    model = complete("base.clip", source, loaded)
    tokenizer = load_or_explain(
        "base.clip: tokenizer",
        source,
        lambda: transformers.CLIPTokenizer.from_pretrained(source, **hub),
    )
    _limit(tokenizer, model.config.text_config)
    settings = load_or_explain(
        "base.clip: preprocessor", source, lambda: _image_settings(source, hub)
    )
    mean, std = pixel_statistics("base.clip", settings, source)
    return Clip(
        model=frozen(model, device, plain=False),
        tokenizer=tokenizer,
        size=model.config.vision_config.image_size,
        mean=mean,
        std=std,
        device=device,
        dtype=dtype,
    )


def complete(key: str, source: str, found: tuple[Any, dict[str, Any]], allowed: Any = None) -> Any:
    """A model that was loaded with `output_loading_info`.

    Raises ModelError if some of its weights were not in its files, but for those `allowed`.
    """
    model, info = found
    options = {} if allowed is None else {"allowed": allowed}
    refuse_random(key, source, info, len(model.state_dict()), **options)
    return model


def _limit(tokenizer: Any, text: Any) -> None:
    """Let a tokenizer say what its text encoder reads: its own file may not (10^30 then)."""
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)


def quiet_transformers() -> Any:
    """transformers, without bars of its own that would tear the run's progress line."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


def images_at_once(side: int, most: int) -> int:
    """How many images of `side` x `side` pixels an autoencoder is given at once, at most `most`."""
    return min(most, max(1, PIXELS_AT_ONCE // side**2))


def round_weights(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen matrices in the precision that they are multiplied in.

    Autocast would round them to it anyway, at every call (it remembers trained weights only): the
    products are the same, bit for bit. Normalisations keep their precision.
    """
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.to(dtype)


@torch.no_grad()
def encode_prompts(base: Base, prompts: Sequence[str]) -> Tensor:
    """[N, L, D] text states of prompts, each distinct prompt computed once.

    Raises ConfigError when a prompt is longer than the text encoder reads: the end of it, often the
    attribute, would be dropped silently.
    """
    distinct = list(dict.fromkeys(prompts))
    limit = base.tokenizer.model_max_length
    for prompt in distinct:
        length = len(base.tokenizer(prompt)["input_ids"])
        if length > limit:
            raise ConfigError(
                f"prompts.template: {prompt!r} is {length} tokens long; expected at most {limit}, "
                "what the text encoder reads. Fix: shorten the template or the words"
            )
    tokens = base.tokenizer(distinct, padding="max_length", max_length=limit, return_tensors="pt")
    mask = tokens["attention_mask"].to(base.device)
    used = getattr(base.text_encoder.config, "use_attention_mask", False)
    with base.autocast():
        states = base.text_encoder(
            tokens["input_ids"].to(base.device), attention_mask=mask if used else None
        )[0]
    row = {prompt: number for number, prompt in enumerate(distinct)}
    return states[[row[prompt] for prompt in prompts]].float()


def _plain_attention(base: BaseConfigSection, device: torch.device) -> bool:
    return base.attention == "plain" or (base.attention == "auto" and device.type == "cpu")


def load_or_explain(what: str, source: str, loader: Callable[[], Any]) -> Any:
    """What `loader` loads; its errors as ModelError, naming `what` (a configuration key)."""
    try:
        return loader()
    except (*FAULTS, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{what}: {source} asks to run Python of its own (auto_map); expected a model that "
                "transformers has itself: no code of a model folder is ever run. Fix: choose such "
                "a model"
            ) from None
        raise ModelError(
            f"{what} cannot be loaded from {source}: {reason_of(error)}\n"
            "Expected safetensors in a folder or on the Hugging Face hub. Fix: check the name, the "
            "revision and the network, or download the model and give its folder"
        ) from error


def load_scheduler(source: str, hub: dict[str, Any]) -> Any:
    """The scheduler of a folder or hub id; ValueError for a class that diffusers does not know."""
    import diffusers

    config = diffusers.DDPMScheduler.load_config(source, subfolder="scheduler", **hub)
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"unknown scheduler class {config.get('_class_name')!r}")
    return kind.from_config(config)  # type: ignore[attr-defined]


def _sizes(source: str, hub: dict[str, Any]) -> tuple[tuple[int, int, int], int]:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = UNet2DConditionModel.load_config(source, subfolder="unet", **hub)
    vae = AutoencoderKL.load_config(source, subfolder="vae", **hub)
    side = unet["sample_size"]
    return (unet["in_channels"], side, side), side * vae_factor(vae)


def _image_settings(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    from transformers.image_processing_base import ImageProcessingMixin

    return ImageProcessingMixin.get_image_processor_dict(source, **hub)[0]


def frozen(part: Any, device: torch.device, plain: bool) -> Any:
    """A module on the device, in eval mode, without gradients; other parts as they are."""
    if not isinstance(part, torch.nn.Module):
        return part
    module: Any = part
    if hasattr(module, "set_attn_processor"):
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

        module.set_attn_processor(AttnProcessor() if plain else AttnProcessor2_0())
    return module.to(device).eval().requires_grad_(False)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context in which models run at `dtype`."""
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled)


def normalised(features: Any) -> np.ndarray:
    """[N, D] float32 rows of length one, of a tensor or a transformers output."""
    tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(tensor.float(), dim=-1).cpu().numpy()
