"""All stages in order, each from its checkpoint: what a worker does, alone or among others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from raysynth.pretraining.autoencoder import train_autoencoder
from raysynth.pretraining.bars import measure
from raysynth.pretraining.clip import train_clip
from raysynth.pretraining.crew import Crew
from raysynth.pretraining.denoiser import train_denoiser
from raysynth.pretraining.export import export
from raysynth.pretraining.judge import train_judge
from raysynth.pretraining.loop import Told
from raysynth.pretraining.making import Making
from raysynth.pretraining.material import Material, list_material
from raysynth.pretraining.order import BARS, Bar, Order
from raysynth.pretraining.settings import WORDS
from raysynth.pretraining.start import Parts, begin
from raysynth.pretraining.tokens import build_tokenizer, cut_texts
from raysynth.storage.files import write_atomic


def make_base(
    order: Order, crew: Crew, told: Told, note: Callable[[str], None] = lambda said: None
) -> list[Bar]:
    """All stages; what is finished is loaded. The leader's bars, none of the others.

    `note`: told in words of what is not as it was given.
    """
    source = list_material(order.dataset, order.prompts, order.settings, order.seed)
    making = making_of(order, source.opened(order.settings.side), crew, told)
    texts, most = making.material.captions.texts, making.tokenizer.model_max_length
    if cut := cut_texts(making.tokenizer, texts):
        note(f"captions: {cut:,} of {len(texts):,} are longer than {most} tokens; their end is cut")
    fresh = begin(order.settings, making.tokenizer, order.seed, crew.device.type == "cpu")
    clip = train_clip(making, fresh.clip)
    vae = train_autoencoder(making, fresh.vae)
    unet = train_denoiser(making, fresh.unet, clip, vae)
    found = _finished(order, making, Parts(clip, vae, unet)) if crew.leads else []
    crew.wait()
    return found


def making_of(order: Order, material: Material, crew: Crew, told: Told) -> Making:
    """What every stage has, of an order."""
    return Making(
        order.settings,
        order.base,
        material,
        build_tokenizer(material.captions.texts),
        crew,
        order.folder,
        order.seed,
        order.keys,
        told,
        material.weights(order.settings.balance),
    )


def _finished(order: Order, making: Making, parts: Parts) -> list[Bar]:
    """Export the base, and measure what was exported: weights in bfloat16."""
    making.told("export", 0, 0, {})
    export(order.exported, parts.clip, parts.vae, parts.unet, making.tokenizer)
    rounded = Parts(*(_rounded(part) for part in (parts.clip, parts.vae, parts.unet)))
    judge = train_judge(making) if order.settings.captions == WORDS else None
    found = []
    for bar in measure(making, rounded, judge, order.fidelity, order.blueprint):
        found.append(bar)
        making.told("bars", len(found), 0, {})
    told = {"key": order.keys["bars"], "bars": [asdict(bar) for bar in found]}
    write_atomic(f"{order.folder}/{BARS}", json.dumps(told, indent=1).encode())
    return found


def _rounded(part: Any) -> Any:
    return part.to(torch.bfloat16).float()
