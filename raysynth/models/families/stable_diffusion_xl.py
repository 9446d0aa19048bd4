"""Stable Diffusion XL: two CLIP text encoders, a pooled state of the second, and image sizes.

The UNet is told the sizes that SDXL was trained to tell apart (Podell et al. 2023, section 2.2):
an image's size before it was scaled, where it was cropped, and its size now. Here all images are
whole ones of the size that is drawn or trained. An empty prompt is told as zeros, as in its
training and as its pipeline does, unless the model's own file says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.models.families.stable_diffusion_1 import CLIP_L, STATES, UNET, StableDiffusion1
from raysynth.models.family import Base, Published, Read, Role
from raysynth.models.parts_family import TOKENS, padded
from raysynth.models.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.models.condition import Condition

SECOND, TOLD = "tokens_2", "told"
"""[S, L] what the second text encoder reads; [S] 0 for prompts that are told as zeros."""
POOLED, SIZES = "pooled", "sizes"
"""[S, D] the second encoder's pooled state; [S, 6] height and width before scaling, the crop's top
and left, height and width now, pixels."""
SIZED = "text_time"
SIDES = 6
CLIP_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}


class StableDiffusionXL(StableDiffusion1):
    """See `raysynth.models.family.Family`."""

    title = "Stable Diffusion XL"
    source = "Podell et al. 2023 (arXiv 2307.01952)"
    classes: Mapping[str, str] = {
        "unet": f"diffusers.{UNET}",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        "tokenizer": "transformers.CLIPTokenizer",
        "tokenizer_2": "transformers.CLIPTokenizer",
    }
    roles: Mapping[Role, tuple[str, ...]] = {
        "model": ("unet", "scheduler"),
        "vae": ("vae",),
        "text": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        "scheduler": ("scheduler",),
    }
    published = Published(
        network={
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": SIZED,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        shape=Shape(latents=(4, 128, 128), factor=8, tokens=77, grain=4),
        encoders=1.8e9,
        texts=(CLIP_L, CLIP_BIG_G),
        hub=("stabilityai/stable-diffusion-xl-", "stabilityai/sdxl-"),
    )
    vae_overflows = True
    pipeline_class = "StableDiffusionXLPipeline"

    @property
    def looks(self) -> str:
        """What its folders hold, in words."""
        return (
            f"a {UNET} that is told sizes in unet/, an AutoencoderKL in vae/, CLIP text models in "
            "text_encoder/ and text_encoder_2/"
        )

    def recognises(self, read: Read) -> bool:
        """A UNet that is told text and sizes, with two text encoders: the refiner has one."""
        unet = read("unet") or {}
        named = unet.get("_class_name", UNET) == UNET and unet.get("addition_embed_type") == SIZED
        return named and all(read(part) for part in self.encoders)

    def tokens(self, base: Base, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids of both encoders, which prompts say something, and the sizes of images."""
        import torch

        from raysynth.models.loading import limit_tokenizer

        read = []
        for number in ("", "_2"):
            tokenizer, encoder = (base.parts[f"{p}{number}"] for p in ("tokenizer", "text_encoder"))
            limit = limit_tokenizer(tokenizer, encoder.config)
            read.append(padded(base, tokenizer, limit, prompts)["input_ids"])
        told = [int(bool(prompt) or not base.shape.zeros) for prompt in prompts]
        sizes = torch.tensor([[*base.size, 0, 0, *base.size]] * len(prompts), device=base.device)
        return {
            TOKENS: read[0],
            SECOND: read[1],
            TOLD: torch.tensor(told, device=base.device),
            SIZES: sizes,
        }

    def states(
        self, encoders: Mapping[str, Any], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Both encoders' states before the last, side by side, and the second's pooled one."""
        import torch

        each = [
            encoders[part](tokens[name], output_hidden_states=True)
            for part, name in (("text_encoder", TOKENS), ("text_encoder_2", SECOND))
        ]
        states = torch.cat([found.hidden_states[-2] for found in each], -1)
        told = tokens[TOLD].bool()
        return {
            STATES: torch.where(told[:, None, None], states, 0.0),
            POOLED: torch.where(told[:, None], each[1].text_embeds, 0.0),
            SIZES: tokens[SIZES],
        }

    def blank(self, model: Any, rows: int, tokens: int) -> Condition:
        """Rows of zeros in the shape that a UNet takes."""
        import torch

        from raysynth.models.condition import Condition

        config = model.config
        told = config.projection_class_embeddings_input_dim
        pooled = told - SIDES * config.addition_time_embed_dim
        numbers = {"device": model.device, "dtype": model.dtype}
        return Condition(
            {
                STATES: torch.zeros(rows, tokens, config.cross_attention_dim, **numbers),
                POOLED: torch.zeros(rows, pooled, **numbers),
                SIZES: torch.zeros(rows, SIDES, device=model.device, dtype=torch.long),
            }
        )

    def asked(self, model: Any, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """[B, C, H, W] what the UNet gives under text states, pooled state and sizes."""
        predicted: Tensor = model(
            x,
            timestep,
            encoder_hidden_states=condition[STATES],
            added_cond_kwargs={"text_embeds": condition[POOLED], "time_ids": condition[SIZES]},
            return_dict=False,
        )[0]
        return predicted

    def shape(self, read: Read) -> Shape:
        """Sizes that its parts say, and whether an empty prompt is told as zeros."""
        from dataclasses import replace

        zeros = (read("") or {}).get("force_zeros_for_empty_prompt", True)
        return replace(super().shape(read), zeros=bool(zeros))

    def pipeline(self, base: Base) -> Any:
        """diffusers' pipeline of loaded parts, without its invisible watermark."""
        from diffusers import StableDiffusionXLPipeline

        from raysynth.models.loading import limit_tokenizer

        for number in ("", "_2"):
            encoder = base.parts[f"text_encoder{number}"]
            limit_tokenizer(base.parts[f"tokenizer{number}"], encoder.config)
        return StableDiffusionXLPipeline(
            **base.parts, force_zeros_for_empty_prompt=base.shape.zeros, add_watermarker=False
        )


PART = StableDiffusionXL()
