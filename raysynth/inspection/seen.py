"""The images that are looked at; those of test for doubles alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysynth.datasets.layout import Dataset
from raysynth.datasets.pictures import Unreadable
from raysynth.groups.groups import Groups

BATCH = 256


@dataclass(frozen=True)
class Seen:
    """Rows of a listing and their images, encoded; those that cannot be read are left out."""

    rows: pa.Table
    images: list[bytes]
    unreadable: int

    def column(self, name: str) -> np.ndarray:
        """[N] values of the listing."""
        found: np.ndarray = self.rows[name].to_numpy(zero_copy_only=False)
        return found

    def of(self, split: str) -> np.ndarray:
        """[M] row numbers of a split."""
        return np.flatnonzero(self.column("split") == split)


def look(dataset: Dataset, listing: pa.Table, groups: Groups, most: int, seed: int = 0) -> Seen:
    """Read at most `most` images of every split, small groups whole.

    Each group gives as many as the others until it has no more.
    """
    split = np.asarray(listing["split"].to_pylist())
    group = listing["group"].to_numpy()
    label = listing["label"].to_numpy()
    group = np.where(group < 0, groups.count + label, group)  # of unknown attribute: its class
    rng = np.random.default_rng([seed, 31])
    chosen = [
        _even(rows, group[rows], most, rng)
        for name in ("train", "validation", "test")
        if len(rows := np.flatnonzero(split == name))
    ]
    rows = listing.take(np.sort(np.concatenate(chosen)))
    images: list[bytes | Unreadable] = []
    for start in range(0, len(rows), BATCH):
        images += dataset.images(rows.slice(start, BATCH))
    good = [isinstance(image, bytes) for image in images]
    read = [image for image in images if isinstance(image, bytes)]
    return Seen(rows.filter(pa.array(good)), read, len(images) - len(read))


def _even(rows: np.ndarray, group: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most `most` of the rows, groups as equally as their sizes allow."""
    if len(rows) <= most:
        return rows
    kept: list[np.ndarray] = []
    left = most
    sizes = sorted((np.flatnonzero(group == g) for g in np.unique(group)), key=len)
    for number, members in enumerate(sizes):
        share = left // (len(sizes) - number)
        kept.append(rng.permutation(members)[:share])
        left -= len(kept[-1])
    return rows[np.concatenate(kept)]


def encoded(
    images: Sequence[bytes], size: int, embed: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """[N, D] features of encoded images as centre squares of a side, a batch at a time."""
    from raysynth.storage.tables import decode_bytes

    parts = [
        embed(decode_bytes(pa.array(images[start : start + BATCH]), size))
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)
