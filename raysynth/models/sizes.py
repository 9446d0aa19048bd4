"""Sizes of images of other proportions than a base's squares: buckets of equal cost.

Trainers of diffusion models call them aspect-ratio buckets (NovelAI 2022): an image is trained at
that one of a few sizes whose proportion is nearest to its own, so that little of it is cut off.
Every size has at most the base's own number of pixels, so a step costs and keeps no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raysynth.models.shape import Shape
from raysynth.sides import Sides


def sizes_of(shape: Shape, most: float) -> tuple[Sides, ...]:
    """Heights and widths in pixels that a base is used for, the square first.

    All are multiples of `shape.unit`; of each width the greatest height that has no more pixels
    than the square.

    Parameters
    ----------
    most : the longer side over the shorter one, at most; 1: the square alone.
    """
    side, unit = shape.side, shape.unit
    found = {(side, side): None}
    for width in range(unit, int(side * math.sqrt(most)) + unit, unit):
        height = side * side // width // unit * unit
        if height and max(height / width, width / height) <= most:
            found.setdefault((height, width), None)
    return tuple(found)


def nearest(images: Sequence[Sides], sizes: Sequence[Sides]) -> NDArray[np.int64]:
    """[N] which of some sizes each image is nearest to in proportion; of equals the first.

    `images`: [N] height and width.
    """
    heights, widths = np.asarray(images, np.float64).reshape(-1, 2).T
    tall, wide = np.asarray(sizes, np.float64).T
    # In logarithms: twice as tall is as far as twice as wide.
    away = np.abs(np.log(heights / widths)[:, None] - np.log(tall / wide)[None])
    return np.argmin(away, 1).astype(np.int64)


def placed(
    images: Sequence[Sides], shape: Shape, most: float
) -> tuple[tuple[Sides, ...], NDArray[np.int64]]:
    """The sizes that some images are used at, and [N] which of them each is; see `sizes_of`.

    `images`: [N] height and width, pixels.
    """
    sizes = sizes_of(shape, most)
    used, place = np.unique(nearest(images, sizes), return_inverse=True)
    return tuple(sizes[each] for each in used.tolist()), place.astype(np.int64)
