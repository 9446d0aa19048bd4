"""outfits: real garments on real grounds, spuriously correlated, 32x32 RGB.

A Waterbirds-style set (composited photographs, as Waterbirds is): the label is the garment, the
attribute is the ground it lies on. A listing says for each image which garment, which crop of which
tile and which jitter it is made of; composing the images from listing rows is a pure function, so
any worker produces the same pixels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from raysynth.datasets import garments
from raysynth.datasets.garments import CLASSES, PHOTOGRAPHS, cut_out
from raysynth.datasets.outfits_tiles import TILE, deal_tiles, tile_pixels

logger = logging.getLogger(__name__)

SIZE = 32
"""Side of an image in pixels."""

CROP = 48
"""Side in pixels of the ground that is scaled down to one image."""

TINTS = {
    "grass": (0.84, 1.08, 0.74),
    "gravel": (0.88, 0.97, 1.14),
    "brick": (1.12, 0.92, 0.88),
}
"""Gain of red, green and blue of each ground: this data set's own look."""

LISTING_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "label": pa.int32(),
        "attribute": pa.int32(),
        "split": pa.string(),
        "ground": pa.int32(),
        "garment": pa.int32(),
        "tile": pa.int32(),
        "crop_x": pa.int32(),
        "crop_y": pa.int32(),
        "turns": pa.int32(),
        "mirrored": pa.bool_(),
        "gain": pa.float32(),
        "scale": pa.float32(),
        "shift_x": pa.float32(),
        "shift_y": pa.float32(),
    }
)


@dataclass(frozen=True)
class Outfits:
    """One outfits data set: two garments, two grounds, a severity and a seed.

    `severity` is the share of bias-aligned images within a class of the train split; validation
    and test are group-balanced. `idx_path` is a folder with Fashion-MNIST's IDX files, needed only
    for pairs whose shipped reserve of garments is too small.
    """

    pair: tuple[str, str] = ("pullover", "coat")
    attributes: tuple[str, str] = ("grass", "gravel")
    severity: float = 0.99
    train_images: int = 4000
    validation_images: int = 400
    test_images: int = 2000
    idx_path: str | None = None
    seed: int = 0

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values, in order."""
        return self.pair

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, in order."""
        return self.attributes

    @property
    def label_words(self) -> tuple[str, ...]:
        """How prompts speak of the labels."""
        return self.pair

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """How prompts speak of the attributes."""
        return self.attributes

    @property
    def aligned(self) -> tuple[str, ...]:
        """None: the largest group of each class, as the images are composed."""
        return ()

    def listing(self) -> pa.Table:
        """One row per image, all splits (LISTING_SCHEMA); no image is composed.

        Raises
        ------
        ValueError
            A setting is out of range, or there are too few garments for the sizes.
        """
        self._check()
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in LISTING_SCHEMA.names}
        for label, name in enumerate(self.pair):
            rng = np.random.default_rng([self.seed, label])
            pool = rng.permutation(self._pool(name))
            start = 0
            for split, group_sizes in self._group_sizes(label).items():
                for attribute, count in enumerate(group_sizes):
                    chosen = pool[start : start + count]
                    start += count
                    for key, values in self._rows(rng, split, label, attribute, chosen).items():
                        columns[key].append(values)
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        return pa.table(joined, schema=LISTING_SCHEMA)

    def images(self, rows: pa.Table) -> list[bytes]:
        """PNG bytes (32x32 RGB) of these listing rows, in their order; depends on the rows only."""
        cutouts = self.cutouts(rows["garment"].to_numpy())
        return [
            garments.encode_png(compose(self.attributes[row["ground"]], cutout, row))
            for row, cutout in zip(rows.to_pylist(), cutouts, strict=True)
        ]

    def _group_sizes(self, label: int) -> dict[str, tuple[int, int]]:
        """Images per attribute value of one class, for each split."""
        per_class = self.train_images // 2
        minority = max(1, round(per_class * (1 - self.severity)))
        aligned, conflicting = per_class - minority, minority
        train = (aligned, conflicting) if label == 0 else (conflicting, aligned)
        validation, test = self.validation_images // 4, self.test_images // 4
        return {
            "train": train,
            "validation": (validation, validation),
            "test": (test, test),
        }

    def _rows(
        self,
        rng: np.random.Generator,
        split: str,
        label: int,
        attribute: int,
        chosen: NDArray[np.int64],
    ) -> dict[str, NDArray[Any]]:
        """Listing columns of one group of one split: garments and their random settings."""
        count, ground = len(chosen), self.attributes[attribute]
        stem = f"{self.pair[label]}-{ground}".replace(" ", "_")
        return {
            "id": np.array([f"{stem}-{garment:05d}" for garment in chosen], dtype=object),
            "label": np.full(count, label, np.int32),
            "attribute": np.full(count, attribute, np.int32),
            "split": np.full(count, split, dtype=object),
            "ground": np.full(count, attribute, np.int32),  # what `attribute` says may be hidden
            "garment": chosen.astype(np.int32),
            "tile": rng.choice(deal_tiles(ground)[split], count).astype(np.int32),
            "crop_x": rng.integers(0, TILE - CROP, count, np.int32, endpoint=True),
            "crop_y": rng.integers(0, TILE - CROP, count, np.int32, endpoint=True),
            "turns": rng.integers(0, 4, count, np.int32),
            "mirrored": rng.random(count) < 0.5,
            "gain": rng.uniform(0.88, 1.12, count).astype(np.float32),
            "scale": rng.uniform(0.96, 1.06, count).astype(np.float32),
            "shift_x": rng.uniform(-1.5, 1.5, count).astype(np.float32),
            "shift_y": rng.uniform(-1.5, 1.5, count).astype(np.float32),
        }

    def _pool(self, name: str) -> NDArray[np.int64]:
        """IDX indices of the garments of one class that this data set may use, ascending."""
        needed = self.train_images // 2 + self.validation_images // 2 + self.test_images // 2
        if needed <= garments.RESERVED[name]:
            table = garments.load_cutouts()
            of_class = np.array(table["class"].to_pylist(), dtype=object) == name
            return table["garment"].to_numpy()[of_class].astype(np.int64)
        if self.idx_path is None:
            raise ValueError(
                f"dataset.pair: too few shipped {name!r} garments: {needed} needed (half of "
                "train_images + validation_images + test_images), "
                f"{garments.RESERVED[name]} available. Lower dataset.train_images, "
                "dataset.validation_images or dataset.test_images, or set dataset.path to a "
                "folder with Fashion-MNIST's four IDX files."
            )
        return self._pool_from_idx(name, needed)

    def _pool_from_idx(self, name: str, needed: int) -> NDArray[np.int64]:
        mnist = garments.load_fashion_mnist(str(self.idx_path))
        of_class = np.flatnonzero(mnist.labels == CLASSES.index(name))
        pixels = mnist.images[of_class].reshape(len(of_class), -1)
        _, first = np.unique(pixels, axis=0, return_index=True)
        pool = of_class[np.sort(first)]
        if needed > len(pool):
            raise ValueError(
                f"dataset.path: too few {name!r} garments in {self.idx_path}: {needed} needed, "
                f"{len(pool)} available. Lower dataset.train_images, dataset.validation_images or "
                "dataset.test_images."
            )
        logger.warning(
            "outfits: %r is cut from %s; the tiny base has seen most of these garments (in its own "
            "rendering), so results on this pair are optimistic.",
            name,
            self.idx_path,
        )
        return pool

    def cutouts(self, indices: NDArray[np.int32]) -> Iterator[Image.Image]:
        """Gray-and-alpha cut-outs (28x28) of garments given by IDX index."""
        table = garments.load_cutouts()
        shipped = table["garment"].to_numpy()
        for index in indices:
            row = int(np.searchsorted(shipped, index))
            if row < len(shipped) and shipped[row] == index:
                yield Image.open(io.BytesIO(table["png"][row].as_py()))
            else:
                mnist = garments.load_fashion_mnist(str(self.idx_path))
                yield Image.fromarray(cut_out(mnist.images[index]))

    def _check(self) -> None:
        """Refuse settings that cannot be listed."""
        if not 0.5 <= self.severity < 1:
            raise ValueError(
                f"dataset.severity: got {self.severity}, expected a share 0.5 <= severity < 1 of "
                "bias-aligned images per class. Use e.g. 0.95, 0.99 or 0.999."
            )
        _check_pair("dataset.pair", self.pair, CLASSES)
        _check_pair("dataset.attributes", self.attributes, PHOTOGRAPHS)
        for field, multiple in (("train", 2), ("validation", 4), ("test", 4)):
            value = getattr(self, f"{field}_images")
            if value < 4 or value % multiple:
                raise ValueError(
                    f"dataset.{field}_images: got {value}, expected a multiple of {multiple} and "
                    "at least 4, to serve all groups. Use e.g. "
                    f"{max(4, value // multiple * multiple)}."
                )


def _check_pair(field: str, found: tuple[str, str], known: tuple[str, ...]) -> None:
    if len(set(found)) != 2 or len(found) != 2 or not set(found) <= set(known):
        raise ValueError(
            f"{field}: got {found!r}, expected two different names of {', '.join(known)}. "
            "Correct the names in the config."
        )


def compose(ground: str, cutout: Image.Image, row: dict[str, Any]) -> NDArray[np.uint8]:
    """Paste a cut-out (28x28, gray and alpha) on its tinted ground crop; uint8 [32, 32, 3]."""
    x, y = row["crop_x"], row["crop_y"]
    crop = Image.fromarray(tile_pixels(ground, row["tile"])[y : y + CROP, x : x + CROP])
    gray = np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    gray = np.rot90(gray[:, ::-1] if row["mirrored"] else gray, row["turns"])
    tint = np.float32(row["gain"]) * np.asarray(TINTS[ground], np.float32)
    rgb = np.clip(np.round(gray[..., None] * tint), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(rgb))
    placed = place(cutout, row)
    image.paste(placed.getchannel("L").convert("RGB"), mask=placed.getchannel("A"))
    return np.asarray(image)


def place(cutout: Image.Image, row: dict[str, Any]) -> Image.Image:
    """The cut-out on an empty 32x32 canvas, scaled about its centre and shifted (pixels)."""
    scale = row["scale"]
    left = cutout.width / 2 - (SIZE / 2 + row["shift_x"]) / scale
    top = cutout.height / 2 - (SIZE / 2 + row["shift_y"]) / scale
    affine = (1 / scale, 0.0, left, 0.0, 1 / scale, top)
    return cutout.transform(
        (SIZE, SIZE), Image.Transform.AFFINE, affine, resample=Image.Resampling.BILINEAR
    )
