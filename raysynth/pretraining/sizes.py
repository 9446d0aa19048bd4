"""The untrained parts of a base, as large as the side of its images asks for."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from raysynth.pretraining.settings import (
    NORM_GROUPS,
    ClipTraining,
    PretrainingConfig,
    sizes_of,
)

PATCHES = 8
"""Patches of an image along each side, which the vision tower sees."""
TEXT_LAYERS = HEADS = 4


def text_settings(clip: ClipTraining, tokenizer: CLIPTokenizer) -> dict[str, object]:
    """The text tower's configuration."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": clip.text_width,
        "intermediate_size": 4 * clip.text_width,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": int(tokenizer.model_max_length),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": clip.text_width,
    }


def build_clip(settings: PretrainingConfig, tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained pair; attention as plain products, whose backward is faster on CPUs."""
    clip = settings.clip
    vision = {
        "hidden_size": clip.width,
        "intermediate_size": 4 * clip.width,
        "num_hidden_layers": clip.layers,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu_pytorch_tanh",
        "image_size": settings.side,
        "patch_size": settings.side // PATCHES,
        "projection_dim": clip.text_width,
    }
    config = CLIPConfig(
        text_config=text_settings(clip, tokenizer),
        vision_config=vision,
        projection_dim=clip.text_width,
    )
    config._attn_implementation = "eager"
    return CLIPModel(config)


def build_autoencoder(settings: PretrainingConfig) -> AutoencoderKL:
    """The untrained autoencoder."""
    widths = sizes_of(settings).autoencoder
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=settings.autoencoder.latent_channels,
        norm_num_groups=NORM_GROUPS["autoencoder"],
        sample_size=settings.side,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def build_denoiser(settings: PretrainingConfig) -> UNet2DConditionModel:
    """The untrained denoiser; it attends below its first level."""
    sizes = sizes_of(settings)
    lower = len(sizes.denoiser) - 1
    return UNet2DConditionModel(
        sample_size=settings.side // sizes.shrinks,
        in_channels=settings.autoencoder.latent_channels,
        out_channels=settings.autoencoder.latent_channels,
        block_out_channels=sizes.denoiser,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
        up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=settings.clip.text_width,
        attention_head_dim=HEADS,
        norm_num_groups=NORM_GROUPS["denoiser"],
    )
