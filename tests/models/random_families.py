"""A tiny model of every family with random weights of the real classes, in a whole folder.

All make images of 32 x 32 pixels from latents of a side of 8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    UMT5Config,
    UMT5EncoderModel,
)

from pretraining.words import build_tokenizer

SIDE, LATENT, CHANNELS = 32, 8, 4
WIDTH, SECOND, POOLED = 32, 24, 12
"""Of text states; of SDXL's second encoder, and of what it pools. diffusers tells the two encoders
in one file apart by their widths."""
BETAS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
WORDS = ("a", "photo", "of", "coat", "pullover", "on", "grass", "gravel", "sks", "user", "says")
CHAT = (
    "{% for m in messages %}{{ m['role'] }} says {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}says{% endif %}"
)


def autoencoder(channels: int = CHANNELS, **more: Any) -> AutoencoderKL:
    shape = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": SIDE,
        "scaling_factor": 0.7,
        "mid_block_add_attention": False,
    }
    return AutoencoderKL(latent_channels=channels, **{**shape, **more})


def clip_text(tokenizer: Any, kind: Any = CLIPTextModel, **more: Any) -> Any:
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return kind(CLIPTextConfig(**{**shape, **more}))


def unet(**more: Any) -> UNet2DConditionModel:
    shape = {
        "sample_size": LATENT,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": (2, 4),
        "norm_num_groups": 8,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**{**shape, **more})


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with an end, a padding and a chat."""
    known = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    kept = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    kept.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=kept,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=CHAT,
    )


def stable_diffusion_2(folder: Path, **scheduler: Any) -> Path:
    """Version 2.1: v-prediction and linear projections."""
    tokenizer = build_tokenizer()
    kind = DDIMScheduler(
        **{"prediction_type": "v_prediction", "clip_sample": False, **BETAS, **scheduler}
    )
    parts = (autoencoder(), clip_text(tokenizer), tokenizer, unet(), kind)
    StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False).save_pretrained(
        folder
    )
    return folder


def stable_diffusion_xl(folder: Path) -> Path:
    """Two text encoders of different widths, pooled states and sizes."""
    tokenizer = build_tokenizer()
    second = {"hidden_size": SECOND, "projection_dim": POOLED}
    network = unet(
        cross_attention_dim=WIDTH + SECOND,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED,
        transformer_layers_per_block=(1, 2),
    )
    StableDiffusionXLPipeline(
        vae=autoencoder(force_upcast=True),
        text_encoder=clip_text(tokenizer),
        text_encoder_2=clip_text(tokenizer, CLIPTextModelWithProjection, **second),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=network,
        scheduler=EulerDiscreteScheduler(**BETAS),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def auraflow(folder: Path) -> Path:
    """One joint and one single block; a T5-like encoder."""
    tokenizer = words()
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2
    )
    network = AuraFlowTransformer2DModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text),
        vae=autoencoder(),
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    ).save_pretrained(folder)
    return folder


def z_image(folder: Path) -> Path:
    """One block each of images, of prompts and of both; a language model as encoder."""
    tokenizer = words()
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
    )
    network = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[128, 16, 16],
    )
    torch.nn.init.normal_(network.x_pad_token, std=0.1)
    torch.nn.init.normal_(network.cap_pad_token, std=0.1)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=Qwen3Model(text),
        tokenizer=tokenizer,
        transformer=network,
    ).save_pretrained(folder)
    return folder


def epsilon(folder: Path) -> Path:
    """Version 2.0's base, which predicts noise."""
    return stable_diffusion_2(folder, prediction_type="epsilon")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "stable_diffusion_2": stable_diffusion_2,
    "stable_diffusion_2_epsilon": epsilon,
    "stable_diffusion_xl": stable_diffusion_xl,
    "auraflow": auraflow,
    "z_image": z_image,
}


def write_family(name: str, folder: Path) -> Path:
    """The folder of a model of a family, always the same."""
    torch.manual_seed(0)
    return WRITERS[name](folder)
