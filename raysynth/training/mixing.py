"""CutMix and MixUp of whole batches: real images among themselves, synthetic ones too.

As DataDream trains its classifier (Kim et al., arXiv 2407.10910; their code): one batch in five is
mixed, by either of the two; every image with the one before it, all by the same share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysynth.training.plan import Phase
from raysynth.training.trainset import TrainingSet


@dataclass(frozen=True)
class Mixing:
    """What is done to the batches of a phase: nothing, or some of them are mixed.

    share: of batches that are mixed. classes: number of labels K. part [N]: which image set each
    entry of the training set is of. dice: of this phase alone, so that batches and augmentation are
    the same with it.
    """

    share: float
    classes: int
    part: NDArray[np.int64]
    dice: np.random.Generator

    @classmethod
    def of(cls, images: TrainingSet, phase: Phase, classes: int, seed: int, number: int) -> Mixing:
        """That of the `number`-th phase of a training with this seed."""
        dice = np.random.default_rng([seed, 223, number])
        return cls(phase.mix, classes, images.part, dice)

    def __call__(
        self, rows: NDArray[np.int64], pixels: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pixels [B, C, H, W] and labels [B] as they are, or float32 pixels and shares [B, K].

        `rows`: [B] entries of the training set. The pixels given are not changed.
        """
        if not self.share or self.dice.random() >= self.share:
            return pixels, label
        pixels, target = pixels.to(torch.float32, copy=True), F.one_hot(label, self.classes).float()
        part = self.part[rows]
        for one in np.unique(part):
            mine = torch.from_numpy(np.flatnonzero(part == one)).to(pixels.device)
            mix = cutmix if self.dice.random() < 0.5 else mixup
            pixels[mine], target[mine] = mix(pixels[mine], target[mine], self.dice)
        return pixels, target


def mixup(pixels: Tensor, target: Tensor, dice: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018 (arXiv 1710.09412): lambda x_i + (1 - lambda) x_j, lambda ~ Beta(1, 1).

    Parameters
    ----------
    pixels : [B, C, H, W] float; target : [B, K] shares of labels.
    """
    share = float(dice.random())
    mixed = (share * each + (1 - share) * each.roll(1, 0) for each in (pixels, target))
    return next(mixed), next(mixed)


def cutmix(pixels: Tensor, target: Tensor, dice: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Yun et al. 2019 (arXiv 1905.04899): a box of x_j, of share 1 - lambda, is pasted into x_i.

    The box is cut off at the edges, and lambda is what is left of x_i. Lambda ~ Beta(1, 1).

    Parameters
    ----------
    pixels : [B, C, H, W] float; target : [B, K] shares of labels.
    """
    side, sizes = np.sqrt(1 - dice.random()), pixels.shape[2:]
    middle = [int(dice.integers(size)) for size in sizes]
    half = [int(side * size / 2) for size in sizes]
    top, left = (max(0, m - h) for m, h in zip(middle, half, strict=True))
    low, right = (min(s, m + h) for m, h, s in zip(middle, half, sizes, strict=True))
    pasted = pixels.clone()
    pasted[:, :, top:low, left:right] = pixels.roll(1, 0)[:, :, top:low, left:right]
    share = 1 - (low - top) * (right - left) / (sizes[0] * sizes[1])
    return pasted, share * target + (1 - share) * target.roll(1, 0)
