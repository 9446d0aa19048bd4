"""A folder of small pictures for the tutorial: `python docs/site/pictures.py FOLDER`.

Cats and coffee (crops of scikit-image's photographs) in front of grass or brick. Cats mostly have
grass, coffee brick: 150 to 10 of each in training; validation and test have as many of each. The
thing is small and gray, the ground fills the picture: it is what a network learns first.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

ALIGNED, CONFLICTING = 150, 10
EACH = {"validation": 12, "test": 25}
SIDE, DISC = 64, 24
"""Pixels of a picture, and of the round piece in it."""


def crop(photograph: np.ndarray, side: int, to: int, rng: np.random.Generator) -> Image.Image:
    """A random square of a photograph, made smaller."""
    y, x = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
    piece = photograph[y : y + side, x : x + side]
    return Image.fromarray(piece).convert("RGB").resize((to, to))


def picture(thing: np.ndarray, ground: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A round gray piece of a thing somewhere on a piece of ground."""
    image = crop(ground, 2 * SIDE, SIDE, rng)
    disc = Image.new("L", (DISC, DISC))
    ImageDraw.Draw(disc).ellipse((0, 0, DISC - 1, DISC - 1), fill=255)
    y, x = (int(value) for value in rng.integers(4, SIDE - DISC - 4, 2))
    image.paste(crop(thing, 120, DISC, rng).convert("L").convert("RGB"), (x, y), disc)
    return image


def write(folder: Path, seed: int = 0) -> int:
    """Write images and metadata.csv; how many images there are."""
    rng = np.random.default_rng(seed)
    things = {"cat": data.chelsea(), "coffee": data.coffee()}
    grounds = {"grass": data.grass(), "brick": data.brick()}
    usual = {"cat": "grass", "coffee": "brick"}
    rows = []
    for label, thing in things.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for attribute, ground in grounds.items():
            train = ALIGNED if usual[label] == attribute else CONFLICTING
            for split, count in {"train": train, **EACH}.items():
                for i in range(count):
                    name = f"{label}/{split}-{attribute}-{i:03d}.png"
                    picture(thing, ground, rng).save(folder / name)
                    rows.append((name, label, attribute, split))
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "attribute", "split"])
        writer.writerows(rows)
    return len(rows)


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} images")
