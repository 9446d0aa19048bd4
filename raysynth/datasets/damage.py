"""Training images of which a part is missing or noisy: what is missing of which, kept beside them.

Simulated, of any data set (`dataset.missing`, `dataset.noise`; patches of 4 x 4 pixels, as GSURE's
are, Kawar et al. 2024), or named by a folder's metadata: columns `mask` (a PNG below the folder, 0
where the image is missing) and `noise` (standard deviation, 0..255). What is missing is filled with
the mean of the rest. `finetune.objective=gsure` reads what is kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raysynth.datasets.files import require_files, some
from raysynth.datasets.layout import Dataset, layout_of
from raysynth.datasets.metadata import read_metadata
from raysynth.datasets.pictures import Unreadable
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import DataError
from raysynth.storage.files import open_storage, write_atomic
from raysynth.storage.tables import encode_png

PATCH = 4
"""Side of what is missing or there as a whole, pixels (theirs)."""
ENDING = ".damage.arrow"
KEPT = pa.schema([("id", pa.string()), ("mask", pa.binary()), ("noise", pa.float32())])
"""`mask`: PNG, 0 where the image is missing; empty: nowhere."""
METADATA = ("metadata.csv", "metadata.parquet")
TREE = "expected masks below the folder, as file_name names images"


@dataclass(frozen=True)
class Damage:
    """What is wrong with an image of [H, W] pixels."""

    mask: np.ndarray | None
    """[H, W] bool, whether a pixel is there; None: all are."""
    noise: float
    """Standard deviation, 0..255."""


class Damaged:
    """A data set whose training images are damaged, see `raysynth.datasets.layout.Dataset`."""

    def __init__(self, whole: Dataset) -> None:
        """`whole`: the data set as it is read."""
        self.whole = whole

    def __getattr__(self, name: str) -> Any:
        if name == "whole":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.whole, name)

    def images(self, rows: pa.Table) -> list[bytes | Unreadable]:
        """Encoded image of each row, damaged if it is a training image; or why it cannot be."""
        each = zip(self.whole.images(rows), rows.select(["id", "split"]).to_pylist(), strict=True)
        return [self._image(image, row) for image, row in each]

    def damage(self, name: str, height: int, width: int) -> Damage:
        """What is wrong with a training image; ValueError where its mask is none for it."""
        raise NotImplementedError

    def spoil(self, pixels: np.ndarray, damage: Damage, name: str) -> np.ndarray:
        """[H, W, 3] uint8 of undamaged pixels."""
        return filled(pixels, damage)

    def kept(self, rows: pa.Table, images: Sequence[bytes]) -> pa.Table:
        """Table `KEPT` of those rows that are training images."""
        found: dict[str, list[Any]] = {name: [] for name in KEPT.names}
        for row, image in zip(rows.select(["id", "split"]).to_pylist(), images, strict=True):
            if row["split"] != "train":
                continue
            width, height = Image.open(io.BytesIO(image)).size
            damage = self.damage(row["id"], height, width)
            mask = b"" if damage.mask is None else encoded_mask(damage.mask)
            for key, value in zip(KEPT.names, (row["id"], mask, damage.noise), strict=True):
                found[key].append(value)
        return pa.table(found, schema=KEPT)

    def _image(self, image: bytes | Unreadable, row: Mapping[str, str]) -> bytes | Unreadable:
        if isinstance(image, Unreadable) or row["split"] != "train":
            return image
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
        try:
            damage = self.damage(row["id"], *pixels.shape[:2])
        except ValueError as error:
            return Unreadable(str(error))
        return encode_png(self.spoil(pixels, damage, row["id"]))


class Simulated(Damaged):
    """Patches that are missing, and noise, drawn from each image's name."""

    def __init__(self, whole: Dataset, missing: float, noise: float, seed: int) -> None:
        """`missing`: share of the patches; `noise`: standard deviation, 0..255."""
        super().__init__(whole)
        self.missing, self.noise, self.seed = missing, noise, seed

    def damage(self, name: str, height: int, width: int) -> Damage:
        """See `Damaged.damage`; one patch is always there."""
        if not self.missing:
            return Damage(None, self.noise)
        shape = (-(-height // PATCH), -(-width // PATCH))
        drawn = self._dice(name, "mask").random(shape)
        there = (drawn >= self.missing) | (drawn == drawn.max())
        mask = np.kron(there, np.ones((PATCH, PATCH), bool))[:height, :width]
        return Damage(mask, self.noise)

    def spoil(self, pixels: np.ndarray, damage: Damage, name: str) -> np.ndarray:
        """See `Damaged.spoil`."""
        if damage.noise:
            added = self._dice(name, "noise").standard_normal(pixels.shape) * damage.noise
            pixels = np.clip(np.round(pixels + added), 0, 255).astype(np.uint8)
        return filled(pixels, damage)

    def _dice(self, name: str, use: str) -> np.random.Generator:
        text = f"damage/{self.seed}/{use}/{name}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "big"))


class Named(Damaged):
    """Masks and noise that the metadata of a folder names."""

    def __init__(self, whole: Dataset, path: str, said: Mapping[str, tuple[str, float]]) -> None:
        """`said`: id of an image -> file of its mask below `path` ("": none), and its noise."""
        super().__init__(whole)
        self.path, self.said = path, dict(said)

    def damage(self, name: str, height: int, width: int) -> Damage:
        """See `Damaged.damage`."""
        file, noise = self.said.get(name, ("", 0.0))
        if not file:
            return Damage(None, noise)
        storage, root = open_storage(f"{self.path}/{file}")
        try:
            mask = decoded(storage.cat_file(root))
        except (OSError, ValueError) as error:
            raise ValueError(f"its mask {file} cannot be read ({type(error).__name__})") from None
        if mask.shape != (height, width):
            found, expected = f"{mask.shape[1]} x {mask.shape[0]}", f"{width} x {height}"
            raise ValueError(f"its mask {file} has {found} pixels, expected {expected}")
        if not mask.any():
            raise ValueError(f"its mask {file} says that all of it is missing")
        return Damage(mask, noise)


def damaged(dataset: Dataset, config: DatasetConfig, seed: int) -> Dataset:
    """The data set as the run has it: itself, unless something is missing of its training images.

    Raises
    ------
    DataError
        Noise in the metadata that is no standard deviation.
    """
    if config.missing or config.noise:
        return Simulated(dataset, config.missing, config.noise, seed)
    if not layout_of(config).names_masks:
        return dataset
    said = _read(str(config.path))
    return Named(dataset, str(config.path), said) if said else dataset


def may_be_damaged(config: DatasetConfig) -> bool:
    """Whether training images may be, as far as is known without looking at any file."""
    return bool(config.missing or config.noise or layout_of(config).names_masks)


def keep(dataset: Dataset, rows: pa.Table, images: Sequence[bytes], file: str) -> None:
    """Write what is missing of a real table's file beside it; nothing where nothing is."""
    if not isinstance(dataset, Damaged):
        return
    table = dataset.kept(rows, images)
    if len(table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, KEPT) as writer:
            writer.write_table(table)
        write_atomic(file.removesuffix(".parquet") + ENDING, sink.getvalue())


def carry(before: str, after: str) -> None:
    """Take what is missing of a real table's images along to one of the same images."""
    storage, root = open_storage(before)
    for name in sorted(n for n in storage.find(root) if n.endswith(ENDING)):
        write_atomic(f"{after}/{name.rsplit('/', 1)[-1]}", storage.cat_file(name))


def read_damage(real: str) -> dict[str, tuple[bytes, float]]:
    """Id of a training image -> PNG of its mask (empty: all is there) and noise; as `keep` wrote.

    Raises DataError for a file that cannot be read.
    """
    storage, root = open_storage(real)
    found: dict[str, tuple[bytes, float]] = {}
    for name in sorted(n for n in storage.find(root) if n.endswith(ENDING)):
        try:
            table = pa.ipc.open_file(pa.BufferReader(storage.cat_file(name))).read_all()
            columns = [table[field.name].to_pylist() for field in KEPT]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(
                f"{real}: {name.rsplit('/', 1)[-1]} cannot be read ({type(error).__name__}); "
                "expected what is missing of the images. Fix: run the ingest stage again"
            ) from None
        found |= {i: (mask, noise) for i, mask, noise in zip(*columns, strict=True)}
    return found


def decoded(mask: bytes) -> np.ndarray:
    """[H, W] bool of a PNG."""
    return np.asarray(Image.open(io.BytesIO(mask), formats=("PNG",)).convert("L")) > 0


def filled(pixels: np.ndarray, damage: Damage) -> np.ndarray:
    """[H, W, 3] uint8 with what is missing in the mean colour of what is there."""
    if damage.mask is None:
        return pixels
    mean = pixels[damage.mask].mean(0).round().astype(np.uint8)
    return np.where(damage.mask[..., None], pixels, mean)


def encoded_mask(mask: np.ndarray) -> bytes:
    """PNG of an [H, W] bool mask, 255 where it is true."""
    return encode_png(mask.astype(np.uint8) * 255)


def _read(path: str) -> dict[str, tuple[str, float]]:
    """Id -> mask's file and noise, of a folder's metadata that names any; empty: it does not."""
    for name in METADATA:
        frame = read_metadata(path, name, ("file_name",), TREE, ("mask", "noise"))
        if frame is None:
            continue
        if "mask" not in frame and "noise" not in frame:
            return {}
        blank = [None] * len(frame)
        masks, noises = (frame.get(key, blank) for key in ("mask", "noise"))
        ids = [str(one).replace("\\", "/") for one in frame["file_name"]]
        files = ["" if one is None or one != one else str(one) for one in masks]
        levels = [_level(one) for one in noises]
        if wrong := [i for i, level in zip(ids, levels, strict=True) if level is None]:
            raise DataError(
                f"{path}/{name}: noise of {some(wrong)} is no number from 0 to 255; expected a "
                "standard deviation, or an empty cell. Fix: correct the column"
            )
        require_files(path, sorted(set(files) - {""}), "the column mask", TREE)
        said = zip(files, [float(level or 0) for level in levels], strict=True)
        return {i: both for i, both in zip(ids, said, strict=True) if both != ("", 0.0)}
    return {}


def _level(value: Any) -> float | None:
    """A cell's standard deviation, 0 where it is empty; None: it is none."""
    if value is None or value != value:
        return 0.0
    try:
        level = float(value)
    except ValueError:
        return None
    return level if 0 <= level <= 255 else None
