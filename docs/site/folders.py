"""A folder of folders for the page on adapters: `python docs/site/folders.py FOLDER`.

Three kinds of garments, each on its own ground, 24 images of 32 x 32 pixels in a folder of its own;
the images of one folder have captions of their own beside them.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from raysynth.datasets.garments import load_cutouts
from raysynth.datasets.outfits import compose
from raysynth.datasets.outfits_tiles import deal_tiles

FOLDERS = {
    "bag_on_grass": ("bag", "grass"),
    "dress_on_brick": ("dress", "brick"),
    "sneaker": ("sneaker", "gravel"),
}
"""Folder -> garment, and the ground of all its images."""
CAPTIONED = "sneaker"
EACH = 24


def write(folder: Path, each: int = EACH, seed: int = 0) -> int:
    """Write the images; how many there are."""
    table = load_cutouts()
    kinds = np.array(table["class"].to_pylist(), object)
    rng = np.random.default_rng(seed)
    for name, (garment, ground) in FOLDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rng.permutation(np.flatnonzero(kinds == garment))[:each]):
            cutout = Image.open(io.BytesIO(table["png"][int(row)].as_py()))
            settings = {
                "tile": int(rng.choice(deal_tiles(ground)["train"])),
                "crop_x": int(rng.integers(0, 16)),
                "crop_y": int(rng.integers(0, 16)),
                "turns": int(rng.integers(0, 4)),
                "mirrored": bool(rng.random() < 0.5),
                "gain": 1.0,
                "scale": 1.0,
                "shift_x": 0.0,
                "shift_y": 0.0,
            }
            path = folder / name / f"{number:04d}.png"
            Image.fromarray(compose(ground, cutout, settings)).save(path)
            if name == CAPTIONED:
                path.with_suffix(".txt").write_text(f"a photo of a {garment} on {ground}")
    return each * len(FOLDERS)


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} images")
