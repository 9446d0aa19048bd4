"""Each group's Gaussian: what noisy images are, as long as noise hides everything else of them.

A noisy image is a x0 + b e. Where b / a is large, images are as good as a Gaussian of their mean
and covariance: what a network makes of noise in its first steps is known, and it does not have to
be asked ("analytical teleportation", Wang & Vastola 2024, arXiv 2412.09726: 15 to 30 % of the steps
left out without loss). x0 is drawn from the Gaussian of real latents here and noised to the level
where the network begins, so brightness, contrast and framing vary from image to image as they do in
real ones; few steps of a solver narrow them.

Covariances are those of a group's own images and, where these are few, of the groups that share its
label or its attribute, around their own means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from raysynth.groups.groups import Groups
from raysynth.synthesis.kept import keep_tensors, read_tensors
from raysynth.synthesis.lineage import Lineage, normal

LEAST = 2
"""Images that have a spread."""
BORROWED = 64
"""Images as many as which the spread of other groups counts."""


@dataclass(frozen=True)
class Gaussians:
    """Gaussians of all groups, by the images that they are of."""

    latents: Tensor
    """[N, C, H, W] real latents, scaled."""
    group: Tensor
    """[N] int64."""
    shares: Tensor
    """[G, G] float64: of a group's (row's) covariance, what those of the groups (columns) make."""

    def draw(self, groups: Sequence[int], dice: Sequence[torch.Generator | Lineage]) -> Tensor:
        """[B, C, H, W] float32 clean latents, one of each group, each by dice of its own."""
        drawn = []
        for g, own in zip(groups, dice, strict=True):
            mean, factor = self.of(g)
            drawn.append(mean + normal(own, len(factor)) @ factor)
        return torch.stack(drawn).view(-1, *self.latents.shape[1:])

    def of(self, g: int) -> tuple[Tensor, Tensor]:
        """[D] mean of a group and [K, D] factor F of its covariance, F^T F."""
        if g not in self._known:
            means, rows = self._means, []
            for k in torch.nonzero(self.shares[g]).flatten().tolist():
                own = self._flat[self.group == k]
                scale = float(self.shares[g, k]) / (len(own) - 1)
                rows.append((own - means[k]) * scale**0.5)
            none = self._flat.new_zeros((0, self._flat.shape[1]))
            self._known[g] = means[g], torch.cat([none, *rows])
        return self._known[g]

    @cached_property
    def _known(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def _flat(self) -> Tensor:
        return self.latents.flatten(1).float()

    @cached_property
    def _means(self) -> Tensor:
        """[G, D]; of a group without images the mean of those that lend it their spread."""
        counts = torch.bincount(self.group, minlength=len(self.shares))
        total = torch.zeros(len(self.shares), self._flat.shape[1]).index_add_(
            0, self.group, self._flat
        )
        means = total / counts.clamp(min=1)[:, None]
        return torch.where((counts > 0)[:, None], means, self.shares.float() @ means)


def gaussians_of(latents: Tensor, group: np.ndarray, groups: Groups) -> Gaussians:
    """The Gaussians of [N, C, H, W] latents of real images and their [N] groups."""
    counts = np.bincount(group, minlength=groups.count)
    shares = torch.from_numpy(shares_of(counts, groups))
    return Gaussians(latents, torch.from_numpy(group.astype(np.int64)), shares)


def shares_of(counts: np.ndarray, groups: Groups) -> np.ndarray:
    """[G, G] shares, of sum 1, of the groups' covariances in each group's.

    n images of its own count n, those of others `BORROWED` in all: of the groups of its label or
    its attribute, each by how sure its own is; of any group where these have none.
    """
    known = np.where(counts >= LEAST, counts / (counts + BORROWED), 0.0)
    label, attribute = (
        np.array([of(g) for g in range(groups.count)]) for of in (groups.label, groups.attribute)
    )
    akin = (label[:, None] == label) | (attribute[:, None] == attribute)
    others = known * (1 - np.eye(groups.count))
    lent = np.where((others * akin).sum(axis=1, keepdims=True) > 0, others * akin, others)
    lent /= np.maximum(lent.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    alone = (lent.sum(axis=1) == 0) & (known > 0)
    own = np.where(alone, 1.0, known)
    shares: np.ndarray = np.diag(own) + (1 - own)[:, None] * lent
    return shares


def keep(found: Gaussians, path: str) -> None:
    """Write Gaussians, of latents in half precision, to a file or URI, whole."""
    tensors = {"latents": found.latents.half(), "group": found.group, "shares": found.shares}
    keep_tensors(tensors, path)


def read(path: str) -> Gaussians:
    """What `keep` wrote; raises StageError if it is not there or cannot be read."""
    names = ("latents", "group", "shares")
    return Gaussians(**read_tensors(path, "the Gaussians that this attempt began with", names))
