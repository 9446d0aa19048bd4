"""Trees of folders with images, for tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset


def write_tree(folder: Path, sizes: dict[str, int], side: int = 8) -> Path:
    """`sizes`: folders below -> images in each, all of other pixels."""
    rng = np.random.default_rng(0)
    for name, count in sizes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return folder


def write_garments(folder: Path, *settings: str) -> Path:
    """The embedded garments as `<split>/<label>/<attribute>/<id>.png`."""
    config = load_config(None, settings)
    dataset, groups, listing = list_dataset(config.dataset, config.seed)
    for row, data in zip(listing.to_pylist(), dataset.images(listing), strict=True):
        label = groups.label_names[row["label"]]
        place = folder / row["split"] / label / groups.attribute_names[row["attribute"]]
        place.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes)
        Image.open(io.BytesIO(data)).save(place / f"{row['id']}.png")
    return folder
