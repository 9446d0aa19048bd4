"""Randomly initialised models of the tiny base's shape, in the folder layout of real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AutoConfig,
    AutoModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
)

from pretraining.words import build_tokenizer

WIDTH, SIDE, CHANNELS = 32, 32, 4


def write_base(folder: Path) -> Path:
    """A Stable Diffusion 1.x folder that predicts a flow: 32 x 32 pixels, latents 4 x 8 x 8."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.7,
        mid_block_add_attention=False,
    )
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0
    )
    parts = (vae, text_encoder, tokenizer, unet, scheduler)
    StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False).save_pretrained(
        folder
    )
    return folder


def write_clip(folder: Path) -> Path:
    """A transformers CLIP folder with an 8-pixel-patch image tower."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"image_size": SIDE, "patch_size": 8}
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={**shape, **text}, vision_config={**shape, **vision}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    return folder


def write_encoder(folder: Path, kind: str) -> Path:
    """A transformers vision model of a kind (dinov2, vit, resnet, swin) and its processor."""
    torch.manual_seed(2)
    transformer = {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    convolutions = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    windows = {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    shape = {"resnet": convolutions, "swin": {**windows, "window_size": 4}}.get(kind, transformer)
    AutoModel.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    return folder
