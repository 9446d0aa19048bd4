"""The two engines: stacked LoRA adapters on a frozen UNet, or full UNet weights (DreamBooth)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raysynth.adapters.banks import read_network
from raysynth.adapters.files import Updates
from raysynth.adapters.grouped_lora import GroupedLoRA, inject, restack
from raysynth.adapters.rows import Rows, flatten
from raysynth.finetune.beginning import start_of
from raysynth.finetune.jobs import Job
from raysynth.finetune.objective import OfImages
from raysynth.finetune.packs import Pack
from raysynth.finetune.settings import OBJECTIVES, FinetuneConfig
from raysynth.models.base import load_base
from raysynth.models.device import DTYPES, pick_device, pick_dtype
from raysynth.models.family import Base, layers_of
from raysynth.models.loading import round_weights
from raysynth.models.settings import BaseConfigSection
from raysynth.storage.files import put_folder, sizes_below
from raysynth.storage.hashes import hashes_below, note_hashes

ACCELERATE = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""accelerate's names of the precisions."""
DTYPE_OF = {short: name for name, short in ACCELERATE.items()}


@dataclass(frozen=True)
class Trainee:
    """A UNet that computes several models at once, each in a slot, with its parameters as a row."""

    unet: Any
    rows: Rows
    enter: Callable[[int, Job, torch.Generator], None]
    """Put a slot's weights to where a job's training starts."""
    route: Callable[[Sequence[int]], None]
    """Say which slot each row of the next batches uses."""
    load: Callable[[int, str], None]
    """Put a slot's weights to those of a model in a folder or URI."""
    save: Callable[[int, str], None]
    """Write the model of a slot into a folder or URI."""
    with_slots: Callable[[int], Trainee]
    """The same UNet with another number of slots; this one is not used any more."""


def precision_of(settings: FinetuneConfig, base: BaseConfigSection) -> str:
    """accelerate's name of the precision to train in.

    `auto` is no float16 where gradients of gradients are taken: they leave its range.
    """
    if settings.precision != "auto":
        return ACCELERATE[settings.precision]
    dtype = pick_dtype("auto", pick_device(base.device))
    if dtype == torch.float16 and second_order(settings):
        return "no"
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no")


def second_order(settings: FinetuneConfig) -> bool:
    """Whether the objective takes gradients of gradients."""
    objective = OBJECTIVES[settings.objective.name]
    return isinstance(objective, OfImages) and objective.twice


def build_trainee(pack: Pack, slots: int) -> Trainee:
    """The base's UNet with `slots` models of the pack's engine, all at their start."""
    if pack.training.engine == "full":
        base = _load_model(pack, "float32")
        return _full_trainee(base)
    settings = pack.settings
    dtype = DTYPE_OF[precision_of(settings, pack.base)]
    base = _load_model(pack, dtype)
    network = base.network
    if dtype != "float32":
        round_weights(network, DTYPES[dtype])
    targets = layers_of(base.family, settings.targets)
    targets |= base.family.text_targets if base.live else {}
    start = start_of(settings, base)
    lora = inject(
        network,
        targets,
        settings.most_rank,
        settings.alpha,
        slots,
        base.prefix,
        rslora=settings.rslora,
        dora=settings.dora,
        also={name: update.form for name, update in start.items()},
    )
    return _lora_trainee(network, lora, start, settings.rank)


def _lora_trainee(unet: Any, lora: GroupedLoRA, start: Updates, rank: int) -> Trainee:
    """`start`: what every training begins with; `rank`: of adapters that have none of their own."""
    rows = flatten(lora.parameters(), lora.adapters)

    def enter(slot: int, job: Job, dice: torch.Generator) -> None:
        lora.reset(slot, dice, job.rank or rank, job.alpha)
        lora.put(slot, start)

    return Trainee(
        unet=unet,
        rows=rows,
        enter=enter,
        route=lora.route,
        load=lora.load,
        save=lora.save,
        with_slots=lambda slots: _lora_trainee(unet, restack(lora, slots), start, rank),
    )


def _full_trainee(base: Base) -> Trainee:
    """All weights of one UNet, kept in float32; one model at a time."""
    unet, part = base.model, base.family.roles["model"][0]
    rows = flatten(list(unet.parameters()), 1)
    start = rows.values.to("cpu", copy=True)  # not on a GPU: a quarter more than training needs

    def enter(_slot: int, _job: Job, _dice: torch.Generator) -> None:
        rows.values.copy_(start)

    @torch.no_grad()
    def load(_slot: int, folder: str) -> None:
        weights = read_network(base, folder, torch.float32)
        for name, parameter in unet.named_parameters():
            parameter.copy_(weights[name])

    def save(_slot: int, folder: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            unet.save_pretrained(f"{scratch}/{part}")
            put_folder(f"{scratch}/{part}", f"{folder}/{part}")
            known = hashes_below(f"{scratch}/{part}", sizes_below(f"{scratch}/{part}"))
        note_hashes(f"{folder}/{part}", known)

    trainee = Trainee(unet, rows, enter, lambda _: None, load, save, lambda _: trainee)
    return trainee


def _load_model(pack: Pack, dtype: str) -> Base:
    section = pack.base.model_copy(update={"dtype": dtype})
    live = pack.settings.text_encoder
    if second_order(pack.settings):  # fused attention has no second derivative
        section = section.model_copy(update={"attention": "plain"})
    base = replace(load_base(section, ("model", "text") if live else ("model",)), live=live)
    if pack.settings.gradient_checkpointing:
        base.model.enable_gradient_checkpointing()
    return base
