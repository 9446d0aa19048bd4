"""Ground photographs cut into tiles, and which split may use which tile.

Each 512x512 photograph is cut into 8x8 tiles of 64x64 pixels. Within every block of 4x4 tiles a
fixed seed deals 6 tiles to the tiny base, 4 to train, 3 to validation and 3 to test, so that the
splits share no pixel and yet all see every region of the photograph.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raysynth.datasets.garments import PHOTOGRAPHS, shipped_file

TILE = 64
"""Side of a tile in pixels."""

TILES_PER_SIDE = 8
_BLOCK = 4
_PER_BLOCK = {"base": 6, "train": 4, "validation": 3, "test": 3}
_DEAL_SEED = 512


@lru_cache(maxsize=len(PHOTOGRAPHS))
def load_photograph(name: str) -> NDArray[np.uint8]:
    """A shipped photograph, gray, uint8 [512, 512]."""
    with Image.open(shipped_file(f"{name}.png")) as image:
        return np.asarray(image)


@lru_cache(maxsize=len(PHOTOGRAPHS))
def deal_tiles(name: str) -> dict[str, NDArray[np.int64]]:
    """Tile numbers (row * 8 + column) of photograph `name` for each split, ascending."""
    rng = np.random.default_rng([_DEAL_SEED, PHOTOGRAPHS.index(name)])
    owners = np.repeat(list(_PER_BLOCK), list(_PER_BLOCK.values()))
    board = np.empty((TILES_PER_SIDE, TILES_PER_SIDE), owners.dtype)
    for top in range(0, TILES_PER_SIDE, _BLOCK):
        for left in range(0, TILES_PER_SIDE, _BLOCK):
            dealt = rng.permutation(owners).reshape(_BLOCK, _BLOCK)
            board[top : top + _BLOCK, left : left + _BLOCK] = dealt
    return {split: np.flatnonzero(board.ravel() == split) for split in _PER_BLOCK}


def tile_pixels(name: str, tile: int) -> NDArray[np.uint8]:
    """The pixels of one tile, uint8 [64, 64]."""
    row, column = divmod(tile, TILES_PER_SIDE)
    photograph = load_photograph(name)
    return photograph[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
