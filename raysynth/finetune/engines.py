"""The two engines: stacked LoRA adapters on a frozen UNet, or full UNet weights (DreamBooth)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import torch

from raysynth.config import Config
from raysynth.finetune.draws import start_dice
from raysynth.finetune.grouped_lora import inject
from raysynth.finetune.plan import Job
from raysynth.finetune.rows import Rows, flatten
from raysynth.models.device import pick_device, pick_dtype
from raysynth.models.loading import load_base

ACCELERATE = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""accelerate's names of the precisions."""
DTYPE_OF = {short: name for name, short in ACCELERATE.items()}


@dataclass(frozen=True)
class Trainee:
    """A UNet that computes P models at once, and their parameters as rows."""

    unet: Any
    rows: Rows
    save: Callable[[int, str], None]
    """Write the model of a position into a folder or URI."""


def precision_of(config: Config) -> str:
    """accelerate's mixed precision; `auto` follows the device."""
    if config.finetune.precision != "auto":
        return ACCELERATE[config.finetune.precision]
    dtype = pick_dtype("auto", pick_device(config.base.device))
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no")


def lora_trainee(config: Config, jobs: Sequence[Job]) -> Trainee:
    """P = len(jobs) stacked adapters; batch rows are P equal blocks."""
    settings = config.finetune
    unet = _load_unet(config, DTYPE_OF[precision_of(config)])
    lora = inject(unet, settings.targets, settings.rank, settings.alpha, len(jobs))
    for position, job in enumerate(jobs):
        lora.reset(position, start_dice(job, config.seed))
    rows = flatten(lora.parameters(), len(jobs))
    block = settings.batch_size * (2 if settings.prior_weight else 1)
    lora.route(torch.arange(len(jobs)).repeat_interleave(block))
    return Trainee(unet, rows, lora.save)


def full_trainee(config: Config, jobs: Sequence[Job]) -> Trainee:
    """All weights of one UNet, kept in float32; one job at a time."""
    (_,) = jobs
    unet = _load_unet(config, "float32")
    rows = flatten(list(unet.parameters()), 1)

    def save(_position: int, folder: str) -> None:
        filesystem, path = fsspec.core.url_to_fs(folder)
        with tempfile.TemporaryDirectory() as scratch:
            unet.save_pretrained(f"{scratch}/unet")
            filesystem.makedirs(path, exist_ok=True)
            filesystem.put(f"{scratch}/unet/", f"{path}/unet/", recursive=True)

    return Trainee(unet, rows, save)


ENGINES: dict[str, Callable[[Config, Sequence[Job]], Trainee]] = {
    "lora": lora_trainee,
    "full": full_trainee,
}


def _load_unet(config: Config, dtype: str) -> Any:
    section = config.base.model_copy(update={"dtype": dtype})
    unet = load_base(section, parts=("unet",)).unet
    if config.finetune.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet
