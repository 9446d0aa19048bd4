"""Images as arrays with their labels and groups, as networks and heads take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.groups import Groups


@dataclass(frozen=True)
class ImageSet:
    """pixels [N, 3, H, W] uint8, label [N] int64, group [N] int64, ids [N] str."""

    pixels: NDArray[np.uint8]
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    ids: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return self.pixels.shape[2]

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """The images of these rows."""
        return ImageSet(self.pixels[rows], self.label[rows], self.group[rows], self.ids[rows])

    def counts(self, groups: int) -> NDArray[np.int64]:
        """[G] images per group."""
        return np.bincount(self.group, minlength=groups)


@dataclass(frozen=True)
class Data:
    """What a training may see; never the test split."""

    train: ImageSet
    validation: ImageSet
    synthetic: ImageSet
    groups: Groups
