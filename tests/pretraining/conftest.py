"""A folder of four groups of tiny pictures, and a base of it in a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.pretraining.crew import Crew
from raysynth.pretraining.making import Making
from raysynth.pretraining.material import list_material
from raysynth.pretraining.order import Order, order_of
from raysynth.pretraining.stages import making_of

SMALL = (
    "pretraining.clip={width: 16, layers: 1, text_width: 16, steps: 3, alone_steps: 3, "
    "batch_size: 16}",
    "pretraining.autoencoder={widths: [8, 8, 8], latent_channels: 4, steps: 4, batch_size: 8}",
    "pretraining.denoiser={widths: [16, 16], steps: 4, batch_size: 8, latents: 64}",
    "pretraining.judge_steps=2",
    "pretraining.samples=2",
    "base.dtype=float32",
    "resources.workers=1",
)
CPU = Crew(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<label>/<attribute>/0.png of two colours in two brightnesses, 36 each, with captions."""
    root = tmp_path_factory.mktemp("pictures")
    rng, rows = np.random.default_rng(0), ["file_name,caption"]
    for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        for attribute, light in (("day", 1.2), ("night", 0.4)):
            folder = root / label / attribute
            folder.mkdir(parents=True)
            for n in range(36):
                pixels = np.array(colour) * light + rng.normal(0, 12, (32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")
                rows.append(f"{label}/{attribute}/{n}.png,a {label} square at {attribute} {n % 3}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def config_of(pictures: Path, tmp_path: Path) -> Callable[..., Config]:
    """A configuration of the pictures and a base of a few steps; further settings."""

    def build(*settings: str) -> Config:
        own = ("dataset.name=tree", f"dataset.path={pictures}", f"storage_path={tmp_path}")
        return load_config([], [*own, *SMALL, *settings])

    return build


@pytest.fixture
def order(config_of: Callable[..., Config], tmp_path: Path) -> Callable[..., Order]:
    """The order of such a configuration."""
    return lambda *settings: order_of(config_of(*settings), str(tmp_path / "base"))


def open_making(order: Order, crew: Crew = CPU) -> Making:
    """What the stages of an order have, its images read."""
    source = list_material(order.dataset, order.prompts, order.settings, order.seed)
    return making_of(order, source.opened(order.settings.side), crew, lambda *_: None)
