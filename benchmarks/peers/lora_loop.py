"""What a user would run for one adapter: a plain diffusers + PEFT + accelerate loop, one process.

It does what diffusers' published example (examples/dreambooth/train_dreambooth_lora.py) does at
every step: read images, encode them with the autoencoder and the prompt with the text encoder, add
noise, predict, clip, step. `--tuned` encodes once before the loop, as the example's options for
pre-computed states do, and takes the attention kernel that is faster here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer


class Images(Dataset):
    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.asarray(Image.open(self.files[index]).convert("RGB"), np.float32)
        if np.random.rand() < 0.5:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


def text_states(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, prompts: list[str]):
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return encoder(tokens.input_ids)[0]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--base", required=True)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--out", required=True)
    options.add_argument("--prompt", required=True)
    options.add_argument("--settings", required=True, help="JSON: steps, rank, precision, ...")
    options.add_argument("--tuned", action="store_true")
    arguments = options.parse_args()
    settings = json.loads(arguments.settings)
    accelerator = Accelerator(mixed_precision=settings["precision"], cpu=True)
    torch.manual_seed(0)

    def part(kind, name):
        return kind.from_pretrained(arguments.base, subfolder=name).requires_grad_(False)

    tokenizer = CLIPTokenizer.from_pretrained(arguments.base, subfolder="tokenizer")
    encoder, vae = part(CLIPTextModel, "text_encoder"), part(AutoencoderKL, "vae")
    unet = part(UNet2DConditionModel, "unet")
    if arguments.tuned:
        unet.set_attn_processor(AttnProcessor())
    unet.add_adapter(
        LoraConfig(
            r=settings["rank"], lora_alpha=settings["alpha"], target_modules=settings["targets"]
        )
    )
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.01)
    schedule = get_scheduler(
        "cosine",
        optimizer,
        num_warmup_steps=settings["steps"] // 10,
        num_training_steps=settings["steps"],
    )
    loader = DataLoader(
        Images(arguments.images), settings["batch_size"], shuffle=True, drop_last=True
    )
    unet, optimizer, loader, schedule = accelerator.prepare(unet, optimizer, loader, schedule)

    @torch.no_grad()
    def encoded(images):
        with accelerator.autocast():
            return vae.encode(images).latent_dist.sample().float() * vae.config.scaling_factor

    cached = None
    if arguments.tuned:
        everything = torch.stack([loader.dataset[i] for i in range(len(loader.dataset))])
        cached = torch.cat([encoded(images) for images in everything.split(64)])
        states = text_states(tokenizer, encoder, [arguments.prompt, ""]).detach()
    done, batches = 0, iter(loader)
    while done < settings["steps"]:
        if cached is not None:
            latents = cached[torch.randint(len(cached), (settings["batch_size"],))]
            dropped = torch.rand(len(latents)) < 0.1
            text = states[dropped.long()]
        else:
            images = next(batches, None)
            if images is None:
                batches = iter(loader)
                continue
            latents = encoded(images)
            prompts = [
                p if np.random.rand() > 0.1 else "" for p in [arguments.prompt] * len(images)
            ]
            with torch.no_grad():
                text = text_states(tokenizer, encoder, prompts)
        noise = torch.randn_like(latents)
        time = torch.sigmoid(torch.randn(len(latents)))
        noisy = (1 - time[:, None, None, None]) * latents + time[:, None, None, None] * noise
        with accelerator.autocast():
            predicted = unet(noisy, time * 1000, text).sample
        loss = F.mse_loss(predicted.float(), noise - latents)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        done += 1
    state = get_peft_model_state_dict(accelerator.unwrap_model(unet))
    StableDiffusionPipeline.save_lora_weights(arguments.out, unet_lora_layers=state)


if __name__ == "__main__":
    main()
