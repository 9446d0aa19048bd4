"""Folders of small images, as a user has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_folders(
    root: Path, images: dict[str, int], sizes: Sequence[tuple[int, int]] = ((32, 32),)
) -> Path:
    """`images` random pictures in a folder of each name; the same of a name every time.

    `sizes`: height and width of the pictures of a folder, in turn.
    """
    for name, count in images.items():
        (root / name).mkdir(parents=True)
        rng = np.random.default_rng(list(name.encode()))
        for number in range(count):
            pixels = rng.integers(0, 256, (*sizes[number % len(sizes)], 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root
