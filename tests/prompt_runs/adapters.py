"""LoRA files as other tools write them, for the embedded base: PEFT's layers, diffusers' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from raysynth.models.sources import EMBEDDED


def pipeline() -> StableDiffusionPipeline:
    """diffusers' own, of the embedded base."""
    pipe = StableDiffusionPipeline.from_pretrained(
        str(EMBEDDED), safety_checker=None, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_lora(
    folder: Path, seed: int, *, told: bool = True, text: bool = False, **lora: Any
) -> Path:
    """A LoRA file of strong effect; `told`: PEFT's settings are in its header."""
    pipe = pipeline()
    torch.manual_seed(seed)
    config = LoraConfig(init_lora_weights=False, **lora)
    pipe.unet.add_adapter(config)
    layers = {"unet_lora_layers": get_peft_model_state_dict(pipe.unet)}
    metadata = {"unet_lora_adapter_metadata": config.to_dict()}
    if text:
        own = LoraConfig(
            r=3, init_lora_weights=False, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"]
        )
        pipe.text_encoder.add_adapter(own)
        layers["text_encoder_lora_layers"] = get_peft_model_state_dict(pipe.text_encoder)
        metadata["text_encoder_lora_adapter_metadata"] = own.to_dict()
    StableDiffusionPipeline.save_lora_weights(folder, **layers, **(metadata if told else {}))
    return folder
