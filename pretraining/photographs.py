"""The tiny base's training images: garments of the base composed in batches, on the fly.

Three looks. BASE is what the base model knows: smaller garments, ground at other magnifications,
near-neutral varied tints, brick and plain colours too. WILD varies everything much more and is the
augmentation of the CLIP vision tower and of the autoencoder. OUTFITS_LIKE imitates outfits (on base
tiles) and is seen by the judge only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pretraining.words import COLOURS, GROUNDS
from raysynth.datasets.garments import (
    CLASSES,
    PHOTOGRAPHS,
    base_indices,
    cut_out,
    load_fashion_mnist,
    pixel_digests,
)
from raysynth.datasets.outfits import CROP, SIZE, TINTS
from raysynth.datasets.outfits_tiles import TILE, deal_tiles, tile_pixels

HELD_OUT_PER_CLASS = 300
"""Garments of each class that no training sees; the bars are measured on them."""

_HUES = {"grass": (1.04, 1.06, 0.84), "gravel": (1.06, 1.00, 0.92), "brick": (1.12, 0.95, 0.86)}
_HOLD_OUT_SEED = 60000


@dataclass(frozen=True)
class Look:
    """How images are composed; ranges are uniform, `tint`, `gain` and `gamma` log-normal."""

    magnified: tuple[float, float]
    """Side in pixels of the ground crop, first range (chosen half the time)."""
    reduced: tuple[float, float]
    """Side in pixels of the ground crop, second range."""
    hues: dict[str, tuple[float, float, float]]
    """Mean gain of red, green, blue of each photograph."""
    tint: float
    """Spread of the gain per channel."""
    gain: float
    """Spread of the brightness."""
    gamma: float
    """Spread of the garment's gamma."""
    scale: tuple[float, float]
    """Size of the garment relative to its 28 pixels."""
    shift: float
    """Largest shift of the garment, pixels."""


BASE = Look((26, 38), (56, 64), _HUES, 0.07, 0.12, 0.15, (0.80, 0.95), 2.0)
WILD = Look((24, 50), (46, 64), _HUES, 0.22, 0.20, 0.30, (0.76, 1.10), 2.5)
OUTFITS_LIKE = Look((CROP, CROP), (CROP, CROP), TINTS, 0.03, 0.08, 0.0, (0.96, 1.06), 1.5)


@dataclass(frozen=True)
class BaseGarments:
    """The base's garments: `cutouts` uint8 [60000, 2, 28, 28] (gray, alpha), `labels` [60000]."""

    cutouts: Tensor
    labels: Tensor
    digests: list[bytes]

    @cached_property
    def held_out(self) -> Tensor:
        """Positions of the garments no training sees, [10 * HELD_OUT_PER_CLASS], by class."""
        rng = np.random.default_rng(_HOLD_OUT_SEED)
        of_class = [np.flatnonzero(self.labels.numpy() == c) for c in range(len(CLASSES))]
        picked = [rng.permutation(members)[:HELD_OUT_PER_CLASS] for members in of_class]
        return torch.from_numpy(np.concatenate(picked))

    @cached_property
    def _training_members(self) -> list[Tensor]:
        free = torch.ones(len(self.labels), dtype=torch.bool)
        free[self.held_out] = False
        return [torch.nonzero((self.labels == c) & free)[:, 0] for c in range(len(CLASSES))]

    def sample(self, count: int, class_weights: Tensor, dice: torch.Generator) -> Tensor:
        """Positions of `count` training garments, classes drawn by weight [10]."""
        classes = torch.multinomial(class_weights, count, replacement=True, generator=dice)
        place = torch.rand(count, generator=dice)
        sizes = torch.tensor([len(members) for members in self._training_members])
        member = (place * sizes[classes]).long()
        table = torch.nn.utils.rnn.pad_sequence(self._training_members, batch_first=True)
        return table[classes, member]


def load_base_garments(idx_folder: str, work: Path) -> BaseGarments:
    """Cut out the 60,000 garments outfits does not contain (kept in `work` for the next time)."""
    mnist = load_fashion_mnist(idx_folder)
    digests = pixel_digests(mnist.images)
    mine = base_indices(mnist.labels, digests)
    kept = work / "base_garments.npy"
    if not kept.exists():
        cutouts = np.stack([cut_out(mnist.images[i]).transpose(2, 0, 1) for i in mine])
        part = work / "base_garments.part.npy"
        np.save(part, cutouts)
        part.rename(kept)
    labels = torch.from_numpy(mnist.labels[mine].astype(np.int64))
    return BaseGarments(torch.from_numpy(np.load(kept)), labels, [digests[i] for i in mine])


def compose(
    cutouts: Tensor, grounds: Tensor, look: Look, dice: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Put cut-outs uint8 [B, 2, 28, 28] on grounds [B].

    Returns the images [B, 3, 32, 32] in 0..1 and how much of each pixel is garment [B, 1, 32, 32].
    """
    count = len(cutouts)
    canvas = torch.where(
        (grounds < len(PHOTOGRAPHS))[:, None, None, None],
        _textured(grounds.clamp(max=len(PHOTOGRAPHS) - 1), look, dice),
        _plain((grounds - len(PHOTOGRAPHS)).clamp(min=0), dice),
    )
    gray, alpha = (cutouts.float() / 255).unbind(1)
    gray = gray ** _log_normal((count, 1, 1), look.gamma, dice)
    premultiplied = torch.stack([gray * alpha, alpha], dim=1)
    low, high = look.scale
    zoom = SIZE / (28 * _uniform((count,), low, high, dice))
    mirror = torch.randint(0, 2, (count,), generator=dice) * 2.0 - 1
    shift = _uniform((count, 2), -1, 1, dice) * look.shift * 2 / 28
    frame = torch.zeros(count, 2, 3)
    frame[:, 0, 0], frame[:, 1, 1], frame[:, :, 2] = zoom * mirror, zoom, shift
    grid = F.affine_grid(frame, [count, 2, SIZE, SIZE], align_corners=False)
    placed = F.grid_sample(premultiplied, grid, align_corners=False)
    light, coverage = placed.split(1, dim=1)
    return (canvas * (1 - coverage) + light).clamp(0, 1), coverage


def _textured(photographs: Tensor, look: Look, dice: torch.Generator) -> Tensor:
    """Tinted crops [B, 3, 32, 32] of the base's tiles of these photographs [B]."""
    count, stacks = len(photographs), _base_tiles()
    which = torch.randint(0, stacks.shape[1], (count,), generator=dice)
    tiles = stacks[photographs, which][:, None].float() / 255
    near = torch.rand(count, generator=dice) < 0.5
    side = torch.where(
        near, _uniform((count,), *look.magnified, dice), _uniform((count,), *look.reduced, dice)
    )
    ratio = side / TILE
    signs = torch.randint(0, 2, (2, count), generator=dice) * 2.0 - 1
    turned = torch.rand(count, generator=dice) < 0.5
    frame = torch.zeros(count, 2, 3)
    frame[:, 0, 0] = torch.where(turned, 0.0, ratio * signs[0])
    frame[:, 1, 1] = torch.where(turned, 0.0, ratio * signs[1])
    frame[:, 0, 1] = torch.where(turned, ratio * signs[0], 0.0)
    frame[:, 1, 0] = torch.where(turned, ratio * signs[1], 0.0)
    frame[:, :, 2] = _uniform((count, 2), -1, 1, dice) * (1 - ratio)[:, None]
    grid = F.affine_grid(frame, [count, 1, SIZE, SIZE], align_corners=False)
    gray = F.grid_sample(tiles, grid, padding_mode="border", align_corners=False)
    hues = torch.tensor([look.hues[name] for name in PHOTOGRAPHS])[photographs]
    tint = hues[:, :, None, None] * _log_normal((count, 3, 1, 1), look.tint, dice)
    return (gray * tint * _log_normal((count, 1, 1, 1), look.gain, dice)).clamp(0, 1)


def _plain(colours: Tensor, dice: torch.Generator) -> Tensor:
    """Plain backgrounds [B, 3, 32, 32] of these colours [B], unevenly lit, a little noisy."""
    count = len(colours)
    mean = torch.tensor(list(COLOURS.values()))[colours]
    mean = mean + 0.03 * torch.randn(count, 3, generator=dice)
    ramp = torch.linspace(-1, 1, SIZE)
    slope = 0.06 * torch.randn(count, 2, 1, 1, generator=dice)
    light = 1 + slope[:, :1] * ramp[:, None] + slope[:, 1:] * ramp
    noise = 0.01 * torch.randn(count, 1, SIZE, SIZE, generator=dice)
    return (mean[:, :, None, None] * light + noise).clamp(0, 1)


def _base_tiles() -> Tensor:
    """The base's tiles of each photograph, uint8 [3, 24, 64, 64]."""
    if not _TILES:
        stacks = [
            np.stack([tile_pixels(name, int(tile)) for tile in deal_tiles(name)["base"]])
            for name in PHOTOGRAPHS
        ]
        _TILES.append(torch.from_numpy(np.stack(stacks)))
    return _TILES[0]


_TILES: list[Tensor] = []


def sample_grounds(count: int, dice: torch.Generator) -> Tensor:
    """Random grounds [count]: grass and gravel .3 each, brick .15, the rest plain colours."""
    plain = 0.25 / len(COLOURS)
    weights = torch.tensor([0.30, 0.30, 0.15] + [plain] * (len(GROUNDS) - len(PHOTOGRAPHS)))
    return torch.multinomial(weights, count, replacement=True, generator=dice)


def _uniform(shape: tuple[int, ...], low: float, high: float, dice: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=dice)


def _log_normal(shape: tuple[int, ...], spread: float, dice: torch.Generator) -> Tensor:
    return torch.exp(spread * torch.randn(shape, generator=dice))
