"""What is refused of `pretraining` by itself, before anything is read or loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysynth.cluster.settings import ResourcesConfig
from raysynth.errors import ConfigError, ModelError
from raysynth.models.mirror import located
from raysynth.models.sources import EMBEDDED
from raysynth.pretraining.settings import PretrainingConfig, sizes_of

KEY = "pretraining.start"
SIZES = {
    "clip": ("width", "layers", "text_width"),
    "autoencoder": ("widths", "latent_channels"),
    "denoiser": ("widths",),
}
"""Knobs that a start has of its own."""


def check_workers(settings: PretrainingConfig, resources: ResourcesConfig) -> None:
    """Refuse batches that workers cannot divide evenly, and workers on one GPU; ConfigError."""
    workers, gpus = resources.workers, resources.gpus_per_worker
    if workers > 1 and gpus % 1:
        raise ConfigError(
            f"resources.gpus_per_worker: got {gpus:g}, but {workers} workers that train one model "
            "cannot share a GPU. Fix: resources.gpus_per_worker=1, or resources.workers=1"
        )
    for part in ("clip", "autoencoder", "denoiser"):
        size = getattr(settings, part).batch_size
        if size % workers:
            up = -(-size // workers) * workers
            raise ConfigError(
                f"pretraining.{part}.batch_size: {size} is no multiple of resources.workers="
                f"{workers}, which divide every batch evenly. Fix: "
                f"pretraining.{part}.batch_size={up}, or other resources.workers"
            )


def check_sizes(settings: PretrainingConfig) -> None:
    """Refuse levels that halve an image's side more often than it can be; ConfigError."""
    sizes = sizes_of(settings)
    halved = sizes.shrinks * 2 ** (len(sizes.denoiser) - 1)
    if settings.side % halved or settings.side == halved:
        raise ConfigError(
            f"pretraining.denoiser.widths: {len(sizes.autoencoder)} and {len(sizes.denoiser)} "
            f"levels of autoencoder and denoiser halve {settings.side} pixels to "
            f"{settings.side / halved:g}; expected 2 at least. Fix: fewer widths"
        )


def check_start(settings: PretrainingConfig) -> None:
    """Refuse a start that no base of this kind can go on from; nothing is loaded.

    Raises
    ------
    ConfigError, ModelError
        It is not there, predicts no flow, has no CLIP beside it, draws images of another side; or
        sizes are asked for beside it.
    """
    if settings.start is None:
        return
    for part, names in SIZES.items():
        section = getattr(settings, part)
        usual = type(section)()
        if own := [name for name in names if getattr(section, name) != getattr(usual, name)]:
            raise ConfigError(
                f"pretraining.{part}.{own[0]}: {KEY} has sizes of its own. Fix: leave it out, or "
                f"{KEY}=null"
            )
    folder = start_folder(settings.start)
    scheduler, vae, unet, _ = (
        _config(folder, name)
        for name in (
            "scheduler/scheduler_config.json",
            "vae/config.json",
            "unet/config.json",
            "clip/config.json",
        )
    )
    if (predicts := scheduler.get("prediction_type")) != "flow_prediction":
        raise ModelError(
            f"{KEY}: {settings.start} predicts {predicts}; expected flow_prediction, as bases do "
            f"that `raysynth pretrain` made. Fix: one of these, or {KEY}=embedded"
        )
    side = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    if side != settings.side:
        raise ConfigError(
            f"pretraining.side: got {settings.side}, but {KEY}={settings.start} draws images of "
            f"{side} pixels. Fix: pretraining.side={side}"
        )


def start_folder(start: str) -> Path:
    """The folder of a start; raises ModelError where there is none: a hub id is not fetched."""
    folder = EMBEDDED if start == "embedded" else Path(located(start, KEY)).absolute()
    if not folder.is_dir():
        raise ModelError(
            f"{KEY}: no folder {start}; expected `embedded`, or the folder of a base that "
            "`raysynth pretrain` made. Fix: check the path (on a cluster every node must see it)"
        )
    return folder


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / name).read_text())
    except (OSError, ValueError):
        raise ModelError(
            f"{KEY}: {folder} has no {name}; expected the folder of a base with its CLIP below "
            f"clip/, as `raysynth pretrain` writes it. Fix: name such a folder, or {KEY}=embedded"
        ) from None
    return found
