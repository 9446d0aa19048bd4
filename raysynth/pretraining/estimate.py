"""What making a base would take: a few steps of each stage are taken here, and timed."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from raysynth.models.device import pick_device
from raysynth.models.threads import use_threads
from raysynth.pretraining.autoencoder import train_autoencoder
from raysynth.pretraining.clip import train_clip
from raysynth.pretraining.crew import Crew, training_dtype
from raysynth.pretraining.denoiser import train_denoiser
from raysynth.pretraining.judge import train_judge
from raysynth.pretraining.making import Making
from raysynth.pretraining.material import Material, list_material
from raysynth.pretraining.order import Order, stages_of
from raysynth.pretraining.settings import COLUMN, NONE, PretrainingConfig
from raysynth.pretraining.stages import making_of
from raysynth.pretraining.start import Parts, begin

TIMED = 4
"""Steps of each stage; the first only prepares."""
LOOKED_AT = 512
"""Images that are read for the trial."""


def estimate(order: Order) -> Iterator[str]:
    """Lines: what is learned from, sizes, minutes of each stage, memory of a worker.

    The stages are tried on what one worker has, and nothing of the trial is kept.
    """
    settings = order.settings
    source = list_material(order.dataset, order.prompts, settings, order.seed)
    source.check_heads()
    yield from _of_material(source.material, settings)
    use_threads(order.resources.cpus_per_worker)
    device = pick_device(order.base.device)
    crew = Crew(device, training_dtype(order.base.dtype, device))
    images = source.opened(settings.side, LOOKED_AT)
    seconds: dict[str, float] = {}

    def told(stage: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        seconds[stage] = losses.get("seconds", 0.0)

    with tempfile.TemporaryDirectory(prefix="raysynth-trial-") as folder:
        making = making_of(replace(_short(order), folder=folder), images, crew, told)
        parts = begin(settings, making.tokenizer, order.seed, device.type == "cpu")
        yield from _of_parts(parts, making)
        _try(making, parts)
    yield from _in_minutes(order, seconds)
    held = source.material.label.numel() * 3 * settings.side**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield f"memory of a worker: {(peak + held) / 1e9:.1f} GB, {held / 1e9:.2f} of it the images"
    if device.type == "cuda":
        yield f"memory on its GPU: {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"


def _short(order: Order) -> Order:
    """The same with trainings of a few steps."""
    settings, few = order.settings, {"steps": TIMED}
    short = {
        "clip": settings.clip.model_copy(update=few | {"alone_steps": TIMED}),
        "autoencoder": settings.autoencoder.model_copy(update=few),
        "denoiser": settings.denoiser.model_copy(update=few | {"latents": LOOKED_AT}),
        "judge_steps": TIMED,
    }
    return replace(order, settings=settings.model_copy(update=short))


def _try(making: Making, parts: Parts) -> None:
    """All trainings."""
    clip = train_clip(making, parts.clip)
    train_denoiser(making, parts.unet, clip, train_autoencoder(making, parts.vae))
    if making.material.groups is not None:
        train_judge(making)


def _in_minutes(order: Order, seconds: Mapping[str, float]) -> Iterator[str]:
    """Of each stage; workers divide all but the judge's."""
    settings, workers = order.settings, order.resources.workers
    steps = {
        "clip-joint": settings.clip.steps,
        "clip": settings.clip.alone_steps,
        "autoencoder": settings.autoencoder.steps,
        "denoiser": settings.denoiser.steps,
        "judge": settings.judge_steps,
    }
    whole = 0.0
    for name in (name for name in stages_of(settings) if name in steps):
        count, each = steps[name], seconds[name] / (1 if name == "judge" else workers)
        whole += each * count
        yield f"{name:<12} {count:>8,} steps of {each:.3f} s: {each * count / 60:.1f} minutes"
    yield f"together {whole / 60:.0f} minutes, if {workers} worker(s) have their CPUs to themselves"


def _of_material(material: Material, settings: PretrainingConfig) -> Iterator[str]:
    trained, held = len(material.trained), len(material.measured)
    yield f"images: {trained:,} to learn from, {held:,} held out, {settings.side} pixels"
    texts = material.captions.texts
    if settings.captions == NONE:
        yield "captions: none; the base draws without words"
    else:
        kind = "of a column" if settings.captions == COLUMN else "of words in templates"
        yield f"captions: {len(texts) - 1:,} {kind}, such as {texts[1]!r}"


def _of_parts(parts: Parts, making: Making) -> Iterator[str]:
    for name, part in (("CLIP", parts.clip), ("autoencoder", parts.vae), ("denoiser", parts.unet)):
        numbers = sum(p.numel() for p in part.parameters())
        yield f"{name}: {numbers / 1e6:.1f} million numbers"
    side = parts.unet.config.sample_size
    yield f"latents of {side} x {side}; {making.tokenizer.model_max_length} tokens a prompt"
