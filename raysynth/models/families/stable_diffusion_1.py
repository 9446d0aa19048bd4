"""Stable Diffusion 1.x and 2.x: a UNet conditioned on the states of one CLIP text encoder.

Version 2 is built of the same classes: a wider text encoder, linear projections, and mostly
v-prediction, which its scheduler says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysynth.models.family import KEY, Base, Published, Read, Role
from raysynth.models.headers import read_config
from raysynth.models.misfits import length_of, refuse_misfit, require_kind, require_whole
from raysynth.models.parts_family import (
    MASK,
    TOKENS,
    PartsFamily,
    padded,
)
from raysynth.models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.condition import Condition

STATES = "states"
"""[S, L, D] the text encoder's states, in a `Condition`."""
UNET = "UNet2DConditionModel"
CLIP_TEXT = "clip_text_model"
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}


class StableDiffusion1(PartsFamily):
    """See `raysynth.models.family.Family`."""

    title = "Stable Diffusion 1.x, 2.x"
    source = "Rombach et al. 2022 (arXiv 2112.10752)"
    classes: Mapping[str, str] = {
        "unet": f"diffusers.{UNET}",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "tokenizer": "transformers.CLIPTokenizer",
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
        shape=Shape(latents=(4, 64, 64), factor=8, tokens=77, grain=8),
        encoders=0.42e9,
        texts=(CLIP_L,),
    )
    pipeline_class = "StableDiffusionPipeline"

    @property
    def looks(self) -> str:
        """What its folders hold, in words."""
        return (
            f"a plain {UNET} in unet/, an AutoencoderKL in vae/, a CLIP text model in text_encoder/"
        )

    def recognises(self, read: Read) -> bool:
        """A UNet that is told nothing but text: SDXL's, for one, is told sizes too."""
        unet = read("unet")
        plain = unet is not None and not unet.get("addition_embed_type")
        return plain and unet is not None and unet.get("_class_name", UNET) == UNET

    def check(self, source: Path) -> None:
        """Refuse a UNet that does not fit its autoencoder or text encoders; raises ModelError."""
        unet, vae = (read_config(KEY, source / part / "config.json") for part in ("unet", "vae"))
        texts = {part: read_config(KEY, source / part / "config.json") for part in self.encoders}
        require_whole(source, "unet", "sample_size", unet.get("sample_size"))
        for part, text in texts.items():
            require_whole(source, part, "hidden_size", text.get("hidden_size"))
        blocks = length_of(vae.get("block_out_channels"))
        require_whole(source, "vae", "block_out_channels", blocks)
        for part, text in texts.items():
            kind = text.get("model_type", CLIP_TEXT)
            require_kind(source, part, kind, CLIP_TEXT, self.title)
        channels = (unet.get("in_channels", 4), vae.get("latent_channels", 4))
        refuse_misfit(source, "unet", "in_channels", *channels)
        width = sum(text["hidden_size"] for text in texts.values())
        refuse_misfit(
            source, "unet", "cross_attention_dim", unet.get("cross_attention_dim", 1280), width
        )

    def blocks(self) -> tuple[type, ...]:
        """Residual and transformer blocks."""
        from diffusers.models.attention import BasicTransformerBlock
        from diffusers.models.resnet import ResnetBlock2D

        return (ResnetBlock2D, BasicTransformerBlock)

    def tokens(self, base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids, and their mask where the text encoder asks for it."""
        from raysynth.models.loading import limit_tokenizer

        tokenizer, config = base.parts["tokenizer"], base.parts["text_encoder"].config
        read = padded(base, tokenizer, limit_tokenizer(tokenizer, config), prompts)
        used = getattr(config, "use_attention_mask", False)
        mask = {MASK: read["attention_mask"]} if used else {}
        return {TOKENS: read["input_ids"], **mask}

    def states(
        self, encoders: Mapping[str, Any], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The text encoder's last states."""
        found = encoders["text_encoder"](tokens[TOKENS], attention_mask=tokens.get(MASK))
        return {STATES: found[0]}

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that a UNet takes."""
        import torch

        from raysynth.models.condition import Condition

        shape = (rows, tokens, model.config.cross_attention_dim)
        return Condition({STATES: torch.zeros(shape, device=model.device, dtype=model.dtype)})

    def asked(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the UNet gives under text states."""
        states = condition[STATES]
        predicted: Tensor = model(x, timestep, encoder_hidden_states=states, return_dict=False)[0]
        return predicted

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


PART = StableDiffusion1()
