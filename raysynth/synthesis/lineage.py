"""Noise that is inherited: an image's is its founder's, changed a little at every birth since.

An image is named by its founder's seed and a path, the numbers of the children that lead to it; all
its noise is a function of these two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lineage:
    """The dice of an image: its founder's, then one for each birth on the way to it."""

    dice: tuple[torch.Generator, ...]
    sigma: float

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32 numbers, near those of its parent drawn in the same order."""
        first, *births = (torch.randn(shape, generator=own) for own in self.dice)
        for birth in births:
            first = inherited(first, birth, self.sigma)
        return first


def lineage_of(seed: int, path: Sequence[int], sigma: float) -> Lineage:
    """The dice of an image; without a path those that an image of this seed has always had."""
    seeds = [int(seed), *(_birth(seed, path[: n + 1]) for n in range(len(path)))]
    return Lineage(tuple(torch.Generator("cpu").manual_seed(s) for s in seeds), sigma)


def inherited(parent: Tensor, birth: Tensor, sigma: float) -> Tensor:
    """A child's noise z' = (z + sigma n) / sqrt(1 + sigma^2), standard normal as its parent's.

    Theirs is z + sigma n (Jain et al. 2023, their code): a GAN's latents are cut off in any case,
    while a diffusion's noise must keep its variance.
    """
    return (parent + sigma * birth) / (1 + sigma**2) ** 0.5


def normal(dice: torch.Generator | Lineage, *shape: int) -> Tensor:
    """Standard normal float32 numbers of a seed's own dice, or of inherited ones."""
    if isinstance(dice, Lineage):
        return dice.normal(*shape)
    return torch.randn(shape, generator=dice)


def cosine(one: Tensor, other: Tensor) -> float:
    """Of two noises, in float64."""
    a, b = one.flatten().double(), other.flatten().double()
    return float(a @ b / (a.norm() * b.norm()))


def _birth(seed: int, path: Sequence[int]) -> int:
    """63-bit seed of a birth."""
    text = f"birth/{seed}/{'-'.join(str(number) for number in path)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def likeness(
    seed: int, path: Sequence[int], sigma: float, shape: tuple[int, ...]
) -> tuple[float, float]:
    """Cosines to the founder of an image's first noise of this shape, and of its parent's."""
    mine, parent, founder = (
        lineage_of(seed, path[:count], sigma).normal(*shape) for count in (len(path), -1, 0)
    )
    return cosine(mine, founder), cosine(parent, founder)
