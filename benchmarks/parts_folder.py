"""A folder of a domain that no embedded model knows: machined parts, washers and cogs, 32 pixels.

    python benchmarks/parts_folder.py /tmp/parts

Every image is drawn anew: a part of its own size, turn, teeth, hole, light and wear on its own
piece of brushed steel or cork. Of the 2,000 training images 98 % of the washers lie on steel and
98 % of the cogs on cork; 400 validation and 600 test images are of all four alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE, FINER = 32, 4
LABELS, GROUNDS = ("washer", "cog"), ("steel", "cork")
SEVERITY, TRAIN, VALIDATION, TEST = 0.98, 2000, 400, 600


def ground(kind: str, rng: np.random.Generator) -> np.ndarray:
    """[S, S, 3] in 0..1 at `FINER` times the side."""
    side = SIDE * FINER
    noise = rng.standard_normal((side, side))
    if kind == "steel":  # brushed: long along one axis, short across
        grain = gaussian_filter(noise, (0.8, 18)) * 5 + gaussian_filter(noise, (0.5, 6))
        colour, depth = np.array([0.58, 0.61, 0.66]), 0.10
    else:  # cork: flecks of two sizes
        flecks = gaussian_filter(noise, 4) * 9 + gaussian_filter(noise[::-1], 1.6) * 3
        grain = np.where(flecks > 0.9, flecks, flecks * 0.45)
        colour, depth = np.array([0.72, 0.52, 0.33]), 0.11
    ramp = np.linspace(-1, 1, side)
    light = 1 + rng.normal(0, 0.08) * ramp[:, None] + rng.normal(0, 0.08) * ramp
    tint = colour * np.exp(rng.normal(0, 0.05, 3) + rng.normal(0, 0.08))
    return (tint * (light * (1 + depth * grain))[..., None]).clip(0, 1)


def part(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colour [S, S, 3] and coverage [S, S] of a part."""
    side = SIDE * FINER
    y, x = np.mgrid[:side, :side] / side * 2 - 1
    x, y = x - rng.uniform(-0.16, 0.16), y - rng.uniform(-0.16, 0.16)
    radius, angle = np.hypot(x, y), np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
    outer, hole = rng.uniform(0.56, 0.76), rng.uniform(0.34, 0.52)
    edge = np.full_like(radius, outer)
    if kind == "cog":
        teeth = rng.integers(7, 12)
        edge = outer * (0.90 + 0.12 * np.tanh(4 * np.sin(teeth * angle)))
        hole = rng.uniform(0.14, 0.3)
    inside = (radius < edge) & (radius > hole * outer)
    height = np.minimum(edge - radius, radius - hole * outer).clip(0, 0.12) / 0.12
    slope = np.gradient(gaussian_filter(height, 2.0))
    lit = rng.uniform(0, 2 * np.pi)
    shade = (np.cos(lit) * slope[1] + np.sin(lit) * slope[0]) * 5
    wear = gaussian_filter(rng.standard_normal((side, side)), 2.5) * 0.35
    metal = np.array([[0.80, 0.80, 0.82], [0.78, 0.66, 0.38], [0.42, 0.43, 0.47]])[rng.integers(3)]
    colour = metal * np.exp(rng.normal(0, 0.06)) * (1 + shade + wear)[..., None]
    return colour.clip(0, 1), inside.astype(float)


def picture(label: str, place: str, rng: np.random.Generator) -> Image.Image:
    """A part on a ground, with its shadow."""
    below, (colour, coverage) = ground(place, rng), part(label, rng)
    shadow = gaussian_filter(np.roll(coverage, rng.integers(3, 8, 2), (0, 1)), 4.0)
    below = below * (1 - 0.45 * shadow[..., None])
    whole = below * (1 - coverage[..., None]) + colour * coverage[..., None]
    small = whole.reshape(SIDE, FINER, SIDE, FINER, 3).mean((1, 3))
    noisy = small + rng.normal(0, 0.012, small.shape)
    return Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8))


def counts(split: str) -> list[tuple[str, str, int]]:
    """(label, ground, images) of a split."""
    pairs = [(label, place) for label in LABELS for place in GROUNDS]
    if split != "train":
        each = (VALIDATION if split == "validation" else TEST) // len(pairs)
        return [(*pair, each) for pair in pairs]
    most = round(TRAIN / 2 * SEVERITY)
    aligned = set(zip(LABELS, GROUNDS, strict=True))
    return [(*pair, most if pair in aligned else TRAIN // 2 - most) for pair in pairs]


def main() -> None:
    """Write <folder>/<split>/<label>/<ground>/0001.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    for split in ("train", "validation", "test"):
        for label, place, number in counts(split):
            folder = arguments.folder / split / label / place
            folder.mkdir(parents=True, exist_ok=True)
            for n in range(number):
                picture(label, place, rng).save(folder / f"{n:04d}.png")


if __name__ == "__main__":
    main()
