"""Plain statistics of images: how bright, contrasted, coloured and sharp, and how that varies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = ("brightness", "contrast", "red_green", "blue_yellow", "sharpness")
"""Of one image, pixels 0 to 255: mean and standard deviation of its grey values; means of R - G and
of B - (R + G) / 2 (the opponent axes of Hasler & Süsstrunk 2003); variance of its Laplacian."""
GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601."""
RING = 0.25
"""Share of the pixels, at the border, that `border` looks at."""
LEAST = 20
"""Images of each side from which a spread is told."""
DRAWS = 200
"""Of the bootstrap."""
CONFIDENCE = 0.95


def plain(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 5] the statistics PLAIN of [N, H, W, 3] images of 3 x 3 pixels or more."""
    x = pixels.astype(np.float32)
    grey = x @ GREY
    red, green, blue = (x[..., channel].mean(axis=(1, 2)) for channel in range(3))
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian -= 4 * inner
    columns = (
        grey.mean(axis=(1, 2)),
        grey.std(axis=(1, 2)),
        red - green,
        blue - (red + green) / 2,
        laplacian.var(axis=(1, 2)),
    )
    return np.stack(columns, axis=1)


def border(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 6] mean and standard deviation of each channel in the outer `RING` of the pixels.

    Where the object fills the middle, this is the background alone.
    """
    height, width = pixels.shape[1:3]
    inside = (1 - np.sqrt(1 - RING)) / 2
    rows, columns = (max(1, round(side * inside)) for side in (height, width))
    ring = np.ones((height, width), bool)
    ring[rows:-rows, columns:-columns] = False
    outer = pixels[:, ring].astype(np.float32)  # [N, P, 3]
    return np.concatenate([outer.mean(axis=1), outer.std(axis=1)], axis=1)


def spreads(
    real: NDArray[Any], made: NDArray[Any], rng: np.random.Generator
) -> dict[str, dict[str, float] | None]:
    """How generated images vary beside real ones; [N, 5] and [M, 5] of `plain`, of one group.

    Returns
    -------
    By name of PLAIN: `ratio` of the standard deviations over images, synthetic / real, `low` and
    `high` of its bootstrap interval (95 %), `level`: the difference of the means. None where a side
    has fewer than `LEAST` images, or real ones do not vary.
    """
    if min(len(real), len(made)) < LEAST:
        return dict.fromkeys(PLAIN)
    one, other = (each.astype(np.float64) for each in (real, made))
    drawn = [
        each[rng.integers(len(each), size=(DRAWS, len(each)))].std(axis=1) for each in (one, other)
    ]
    level = other.mean(axis=0) - one.mean(axis=0)
    scale, tail = one.std(axis=0), 100 * (1 - CONFIDENCE) / 2
    found: dict[str, dict[str, float] | None] = {}
    for place, name in enumerate(PLAIN):
        if scale[place] == 0 or not drawn[0][:, place].all():
            found[name] = None
            continue
        low, high = np.percentile(drawn[1][:, place] / drawn[0][:, place], [tail, 100 - tail])
        found[name] = {
            "ratio": float(other[:, place].std() / scale[place]),
            "low": float(low),
            "high": float(high),
            "level": float(level[place]),
        }
    return found
