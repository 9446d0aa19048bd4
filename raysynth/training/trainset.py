"""What a phase trains on: which images, how often each is drawn, and how much its loss counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysynth.groups.balance import (
    balanced_subset,
    draw_balanced,
    drawn_rows,
    fill_counts,
    image_weights,
)
from raysynth.networks.images import Data, ImageSet
from raysynth.training.plan import Phase


@dataclass(frozen=True)
class TrainingSet:
    """Rows of one or two image sets (counted through), without a copy of their pixels.

    groups: their number G. rows [N]: an image may occur several times. probability [N]: drawn with
    replacement; None: shuffled epochs. weight [N]: of the image's loss, 1 on average over the
    draws; None: all 1. halves: every batch is half of the first set and half of the second.
    """

    parts: tuple[ImageSet, ...]
    groups: int
    rows: NDArray[np.int64]
    probability: NDArray[np.float64] | None = None
    weight: NDArray[np.float32] | None = None
    halves: bool = False

    @property
    def part(self) -> NDArray[np.int64]:
        """[N] which of `parts` each is of."""
        return np.searchsorted(np.cumsum([len(part) for part in self.parts]), self.rows, "right")

    @property
    def label(self) -> NDArray[np.int64]:
        """[N] labels."""
        return np.concatenate([part.label for part in self.parts])[self.rows]

    @property
    def group(self) -> NDArray[np.int64]:
        """[N] groups."""
        return np.concatenate([part.group for part in self.parts])[self.rows]

    def pixels(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[B, 3, H, W] of entries of `rows`."""
        rows = self.rows[chosen]
        if len(self.parts) == 1:
            return self.parts[0].pixels[rows]
        out = np.empty((len(rows), *self.parts[0].pixels.shape[1:]), np.uint8)
        start = 0
        for part in self.parts:
            mine = (rows >= start) & (rows < start + len(part))
            out[mine] = part.pixels[rows[mine] - start]
            start += len(part)
        return out

    def batches(self, size: int, seed: int, phase: int) -> Iterator[NDArray[np.int64]]:
        """Endless batches of positions; a seed gives the same ones in every process."""
        rng = np.random.default_rng([seed, 211, phase] if phase else [seed, 211])
        count = len(self.rows)
        size = min(size, count)
        if self.halves:
            yield from self._halves(rng, size // 2)
        while self.probability is not None:
            yield rng.choice(count, size, p=self.probability)
        while True:
            order = rng.permutation(count)
            for start in range(0, count - size + 1, size):
                yield order[start : start + size]

    def _halves(self, rng: np.random.Generator, size: int) -> Iterator[NDArray[np.int64]]:
        """Endless batches of `size` positions of the first part, then as many of the second."""
        assert self.probability is not None
        parts = [np.flatnonzero(self.part == part) for part in range(2)]
        shares = [self.probability[mine] / self.probability[mine].sum() for mine in parts]
        while True:
            drawn = [rng.choice(m, size, p=p) for m, p in zip(parts, shares, strict=True)]
            yield np.concatenate(drawn)


def training_set(
    phase: Phase, data: Data, seed: int, predicted: NDArray[np.int64] | None = None
) -> TrainingSet:
    """The images of a phase.

    Parameters
    ----------
    predicted : [N] labels that the network before this phase gives the real training images; for
        `real_errors` only.
    """
    real, groups = data.train, data.groups.count
    if phase.images in ("usb", "asb", "joint"):
        return _mixed(phase, data, seed)
    if phase.images.startswith("synthetic"):
        # Never real images too: "looks synthetic" would become the new shortcut (FFR).
        made = data.synthetic
        count = round(phase.ratio * len(real))
        if phase.images == "synthetic_fill":
            count = fill_counts("asb", real.counts(groups)).sum()
        return TrainingSet((made,), groups, draw_balanced(made.group, int(count), groups, seed))
    rows = np.arange(len(real))
    if phase.images == "real_subset":
        rows = balanced_subset(real.group, seed)
    elif phase.images == "real_errors":
        assert predicted is not None
        rows = np.repeat(rows, np.where(predicted != real.label, phase.upweight, 1))
    found = TrainingSet((real,), groups, rows)
    even = image_weights(found.group, "balanced")
    probability = even if phase.sampling == "balanced" else None
    weight = (even * len(rows)).astype(np.float32) if phase.reweighted else None
    return TrainingSet((real,), groups, rows, probability, weight)


def mixture_counts(images: str, data: Data) -> tuple[int, int]:
    """Synthetic images that usb, asb or synthetic_fill asks for, and those that it gets."""
    sizes, there = (part.counts(data.groups.count) for part in (data.train, data.synthetic))
    wanted = fill_counts("usb" if images == "usb" else "asb", sizes)
    if images == "synthetic_fill":  # FFR's step 1 stays balanced: the smallest group decides
        wanted, there = np.maximum(wanted, 1), np.full_like(there, there.min())
    return int(wanted.sum()), int(np.minimum(wanted, there).sum())


def _mixed(phase: Phase, data: Data, seed: int) -> TrainingSet:
    """Real and synthetic images together: usb and asb (FFR's mixtures), joint (DataDream's)."""
    real, made, groups = data.train, data.synthetic, data.groups.count
    if phase.images == "joint":
        count = round(phase.ratio * len(real))
        drawn = draw_balanced(made.group, count, groups, seed)
    else:
        wanted = fill_counts(phase.images, real.counts(groups))
        drawn = drawn_rows(made.group, wanted, seed)
    rows = np.concatenate([np.arange(len(real)), len(real) + drawn])
    if phase.images != "joint":
        return TrainingSet((real, made), groups, rows)
    # Half of every batch, on average or exactly, is real; its share of the loss is `real_share`.
    objective = "balanced" if phase.sampling == "balanced" else "erm"
    of_real = 0.5 * image_weights(real.group, objective)
    probability = np.concatenate([of_real, np.full(len(drawn), 0.5 / len(drawn))])
    weight = np.where(rows < len(real), 2 * phase.real_share, 2 * (1 - phase.real_share))
    found = TrainingSet((real, made), groups, rows, probability, weight.astype(np.float32))
    return replace(found, halves=phase.joint_means)
