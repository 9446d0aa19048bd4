"""Stable Diffusion 1.x and 2.x: a UNet conditioned on the states of one CLIP text encoder.

Version 2 is built of the same classes: a wider text encoder, linear projections, and mostly
v-prediction, which its scheduler says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.errors import ConfigError, ModelError
from raysynth.models.family import KEY, Base, Loader, Published, Read, Role, Shape
from raysynth.models.headers import read_config

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.condition import Condition
    from raysynth.models.prediction import Prediction

STATES = "states"
"""[S, L, D] the text encoder's states, in a `Condition`."""
TOKENS, MASK = "tokens", "mask"
"""[S, L] what the text encoder reads, instead of its states, where it is adapted too."""
UNET = "UNet2DConditionModel"


class StableDiffusion1:
    """See `raysynth.models.family.Family`."""

    title = "Stable Diffusion 1.x"
    source = "Rombach et al. 2022 (arXiv 2112.10752)"
    looks = f"a plain {UNET} in unet/, an AutoencoderKL in vae/, a CLIP text model in text_encoder/"
    tree: Mapping[str, str] = {
        "unet/config.json": "unet/diffusion_pytorch_model*.safetensors",
        "vae/config.json": "vae/diffusion_pytorch_model*.safetensors",
        "text_encoder/config.json": "text_encoder/model*.safetensors",
        "tokenizer/tokenizer_config.json": "tokenizer/*",
        "scheduler/scheduler_config.json": "scheduler/*",
    }
    roles: Mapping[Role, tuple[str, ...]] = {
        "model": ("unet", "scheduler"),
        "vae": ("vae",),
        "text": ("text_encoder", "tokenizer"),
        "scheduler": ("scheduler",),
    }
    targets: Mapping[str, tuple[str, ...]] = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "feed_forward": ("ff.net.0.proj", "ff.net.2"),
        "time": ("time_emb_proj",),
        "convolution": (
            "conv1",
            "conv2",
            "conv_shortcut",
            "proj_in",
            "proj_out",
            "downsamplers.0.conv",
            "upsamplers.0.conv",
        ),
    }
    text_targets: Mapping[str, tuple[str, ...]] = {
        "text": tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    }
    published = Published(
        network={
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        shape=Shape(latents=(4, 64, 64), factor=8, tokens=77),
        encoders=0.42e9,
        text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    )

    def recognises(self, read: Read) -> bool:
        """A UNet that is told nothing but text: SDXL's, for one, is told sizes too."""
        unet = read("unet")
        plain = unet is not None and not unet.get("addition_embed_type")
        return plain and unet is not None and unet.get("_class_name", UNET) == UNET

    def check(self, source: Path) -> None:
        """Refuse a UNet that does not fit its autoencoder or text encoder; raises ModelError."""
        unet, vae, text, _, _ = (read_config(KEY, source / file) for file in self.tree)
        for part, name, value in (
            ("unet", "sample_size", unet.get("sample_size")),
            ("text_encoder", "hidden_size", text.get("hidden_size")),
            ("vae", "block_out_channels", len(_list(vae.get("block_out_channels")))),
        ):
            if not _whole(value):
                raise ModelError(
                    f"{KEY}: {source}/{part}/config.json has {name}={value!r:.80}; expected a "
                    "whole number above 0 (block_out_channels: a list). Fix: take the config.json "
                    "that the model was published with"
                )
        kind = text.get("model_type", "clip_text_model")
        if kind != "clip_text_model":
            raise ModelError(
                f"{KEY}: {source}/text_encoder is a {kind!r:.80}; expected clip_text_model. "
                f"Fix: choose a {self.title} model"
            )
        for what, got, needed in (
            ("in_channels", unet.get("in_channels", 4), vae.get("latent_channels", 4)),
            ("cross_attention_dim", unet.get("cross_attention_dim", 1280), text["hidden_size"]),
        ):
            if got != needed:
                raise ModelError(
                    f"{KEY}: {source}/unet has {what}={got}, but its vae and text encoder need "
                    f"{needed}. Fix: keep the parts of one model together"
                )

    def check_weights(self, source: Path) -> None:
        """Refuse a folder whose files lack weights; raises ModelError."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        from raysynth.models.architecture import build, check_diffusers, check_transformers

        kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
        for part, kind in kinds.items():
            key, place = f"{KEY}: {part}", source / part
            config = read_config(key, place / "config.json")
            check_diffusers(key, place, build(key, place, partial(kind.from_config, config)))
        key, place = f"{KEY}: text_encoder", source / "text_encoder"
        shape = read_config(key, place / "config.json")
        text = build(key, place, lambda: CLIPTextConfig.from_dict(shape))
        check_transformers(key, place, build(key, place, lambda: CLIPTextModel(text)), text)

    def shape(self, read: Read) -> Shape:
        """Sizes that UNet, autoencoder, text encoder and tokenizer say."""
        unet, vae = read("unet") or {}, read("vae") or {}
        side = unet["sample_size"]
        usual = self.published.shape.tokens
        said: tuple[Any, ...] = (
            (read("text_encoder") or {}).get("max_position_embeddings", usual),
            (read("tokenizer") or {}).get("model_max_length"),
        )
        return Shape(
            latents=(unet.get("in_channels", 4), side, side),
            factor=int(2 ** (len(vae["block_out_channels"]) - 1)),
            tokens=min((length for length in said if _whole(length)), default=usual),
        )

    def load(self, part: str, loader: Loader) -> Any:
        """One part of a model."""
        import diffusers
        import transformers

        if part == "text_encoder":
            return loader.weights(
                part,
                transformers.CLIPTextModel,
                dtype=loader.dtype,
                attn_implementation="eager" if loader.plain else "sdpa",
                ignore_mismatched_sizes=True,  # `complete` names them
            )
        if part == "tokenizer":
            return loader.other(part, transformers.CLIPTokenizer)
        if part == "scheduler":
            return loader.scheduler(part)
        kind = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}[part]
        return loader.weights(part, kind, torch_dtype=loader.dtype)

    def build(self, config: Mapping[str, Any]) -> Any:
        """A UNet with random weights."""
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel.from_config(dict(config))

    def blocks(self) -> tuple[type, ...]:
        """Residual and transformer blocks."""
        from diffusers.models.attention import BasicTransformerBlock
        from diffusers.models.resnet import ResnetBlock2D

        return (ResnetBlock2D, BasicTransformerBlock)

    def condition(self, base: Base, prompts: Sequence[str]) -> Condition:
        """Text states of prompts, each distinct prompt computed once; their tokens if `base.live`.

        Raises ConfigError when a prompt is longer than the text encoder reads: the end of it, often
        the attribute, would be dropped silently.
        """
        import torch

        from raysynth.models.condition import Condition
        from raysynth.models.loading import limit_tokenizer

        tokenizer, encoder = base.parts["tokenizer"], base.parts["text_encoder"]
        distinct = list(dict.fromkeys(prompts))
        limit = limit_tokenizer(tokenizer, encoder.config)
        for prompt in distinct:
            length = len(tokenizer(prompt)["input_ids"])
            if length > limit:
                raise ConfigError(
                    f"prompts.template: {prompt!r} is {length} tokens long; expected at most "
                    f"{limit}, what the text encoder reads. Fix: shorten the template or the words"
                )
        tokens = tokenizer(distinct, padding="max_length", max_length=limit, return_tensors="pt")
        mask = tokens["attention_mask"].to(base.device)
        used = getattr(encoder.config, "use_attention_mask", False)
        ids = tokens["input_ids"].to(base.device)
        row = {prompt: number for number, prompt in enumerate(distinct)}
        rows = [row[prompt] for prompt in prompts]
        if base.live:
            return Condition({TOKENS: ids, **({MASK: mask} if used else {})}).take(rows)
        with torch.no_grad(), base.autocast():
            states = encoder(ids, attention_mask=mask if used else None)[0]
        return Condition({STATES: states[rows].float()})

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that a UNet takes."""
        import torch

        from raysynth.models.condition import Condition

        shape = (rows, tokens, model.config.cross_attention_dim)
        return Condition({STATES: torch.zeros(shape, device=model.device, dtype=model.dtype)})

    def predict(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the UNet gives; of tokens, `joined` with its text encoder."""
        if TOKENS in condition.tensors:
            told = (condition[TOKENS], condition.tensors.get(MASK))
            found: Tensor = model(x, timestep, *told)
            return found
        states = condition[STATES]
        predicted: Tensor = model(x, timestep, encoder_hidden_states=states, return_dict=False)[0]
        return predicted

    def joined(self, base: Base) -> Any:
        """The UNet and its text encoder as one module, which is told tokens."""
        from raysynth.models.joined import TextAndUNet

        return TextAndUNet(base.parts["text_encoder"], base.parts["unet"])

    def prediction(self, scheduler: Any) -> Prediction:
        """What the scheduler's configuration says; raises ModelError for what is not known here."""
        from raysynth.models.prediction import prediction_of

        return prediction_of(scheduler)

    def pipeline(self, base: Base) -> Any:
        """diffusers' pipeline of loaded parts, without a safety checker."""
        from diffusers import StableDiffusionPipeline

        from raysynth.models.loading import limit_tokenizer

        limit_tokenizer(base.parts["tokenizer"], base.parts["text_encoder"].config)
        return StableDiffusionPipeline(
            **base.parts,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


PART = StableDiffusion1()
