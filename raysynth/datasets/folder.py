"""folder: images and `metadata.csv` or `metadata.parquet` (the Hugging Face ImageFolder layout).

Columns: `file_name` (relative to the folder), `label`, `attribute`, and optionally `split`.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageOps

from raysynth.errors import DataError

ORIENTATION = 0x0112  # EXIF tag
REQUIRED = ("file_name", "label", "attribute")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
EXPECTED_TREE = """expected
  <dataset.path>/metadata.csv      file_name,label,attribute[,split]
  <dataset.path>/images/0001.jpg   any sub-folders, named in file_name"""


@dataclass(frozen=True)
class Folder:
    """A folder or URI of images with their metadata.

    `validation_share` and `test_share` are used when the metadata has no `split` column: every
    group is divided from the seed. `image_size` (pixels) makes all images squares of that side.
    """

    path: str
    validation_share: float = 0.1
    test_share: float = 0.2
    image_size: int | None = None
    seed: int = 0

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label values, sorted."""
        return _names(self._metadata()["label"])

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attribute values, sorted."""
        return _names(self._metadata()["attribute"])

    @property
    def label_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return tuple(name.replace("_", " ") for name in self.label_names)

    @property
    def attribute_words(self) -> tuple[str, ...]:
        """The names, underscores as spaces."""
        return tuple(name.replace("_", " ") for name in self.attribute_names)

    def listing(self) -> pa.Table:
        """`id` (= file_name), `label, attribute: int32`, `split`; no image is opened.

        Raises
        ------
        DataError
            The metadata is missing, lacks a column, has empty or doubled entries, names files that
            are not there or that lie outside the folder.
        """
        frame = self._metadata()
        self._check_files(frame)
        label, attribute = _codes(frame["label"]), _codes(frame["attribute"])
        if "split" in frame:
            split = _read_splits(frame["split"])
        else:
            split = self._deal(label * (attribute.max() + 1) + attribute).tolist()
        return pa.table(
            {
                "id": pa.array(frame["file_name"].astype(str).tolist(), pa.string()),
                "label": pa.array(label, pa.int32()),
                "attribute": pa.array(attribute, pa.int32()),
                "split": pa.array(split, pa.string()),
            }
        )

    def images(self, rows: pa.Table) -> list[bytes | None]:
        """Encoded 8-bit RGB image of each row; None where the file cannot be read."""
        filesystem, root = fsspec.core.url_to_fs(self.path)
        encoded: list[bytes | None] = []
        for name in rows["id"].to_pylist():
            try:
                encoded.append(to_rgb_bytes(filesystem.cat_file(f"{root}/{name}"), self.image_size))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                encoded.append(None)
        return encoded

    def _metadata(self) -> pd.DataFrame:
        filesystem, root = fsspec.core.url_to_fs(self.path)
        if not filesystem.isdir(root):
            raise DataError(f"dataset.path: {self.path} is not a folder; {EXPECTED_TREE}")
        for name, read in (("metadata.csv", pd.read_csv), ("metadata.parquet", pd.read_parquet)):
            if filesystem.exists(f"{root}/{name}"):
                with filesystem.open(f"{root}/{name}", "rb") as file:
                    return self._checked(_read(read, file, f"{self.path}/{name}"), name)
        raise DataError(
            f"dataset.path: no metadata.csv or metadata.parquet in {self.path}; {EXPECTED_TREE}"
        )

    def _checked(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        where = f"{self.path}/{name}"
        missing = [column for column in REQUIRED if column not in frame]
        if missing:
            raise DataError(
                f"{where}: column(s) {', '.join(missing)} missing; got "
                f"{', '.join(map(str, frame.columns))}; expected {', '.join(REQUIRED)} and "
                "optionally split. Fix: rename or add the column"
            )
        empty = frame[list(REQUIRED)].isna().any(axis=1)
        if empty.any():
            raise DataError(
                f"{where}: {int(empty.sum())} row(s) with an empty {'/'.join(REQUIRED)}, the first "
                f"is row {int(np.flatnonzero(empty)[0]) + 1}. Fix: fill or remove them"
            )
        doubled = frame["file_name"][frame["file_name"].duplicated()]
        if len(doubled):
            raise DataError(f"{where}: {_some(doubled)} named more than once. Fix: remove doubles")
        if frame.empty:
            raise DataError(f"{where}: no rows; {EXPECTED_TREE}")
        return frame

    def _check_files(self, frame: pd.DataFrame) -> None:
        names = [str(name) for name in frame["file_name"]]
        outside = [name for name in names if _leaves(name)]
        if outside:
            raise DataError(
                f"{self.path}: file_name {_some(outside)} leaves the folder; expected paths "
                "relative to it without `..`. Fix: move the files into the folder"
            )
        filesystem, root = fsspec.core.url_to_fs(self.path)
        present = {path.removeprefix(root).lstrip("/") for path in filesystem.find(root)}
        gone = [name for name in names if posixpath.normpath(name) not in present]
        if gone:
            raise DataError(
                f"{self.path}: {_some(gone)} named in the metadata but not there. Fix: add the "
                "files or remove the rows"
            )
        if "file" in filesystem.protocol:
            self._check_links(names, root)

    def _check_links(self, names: list[str], root: str) -> None:
        import os

        real = os.path.realpath(root) + os.sep
        outside = [n for n in names if not os.path.realpath(f"{root}/{n}").startswith(real)]
        if outside:
            raise DataError(
                f"{self.path}: {_some(outside)} is a link that leaves the folder. Fix: copy the "
                "files into the folder"
            )

    def _deal(self, group: np.ndarray) -> np.ndarray:
        """A split per row, stratified by group: at least one image of each split where possible."""
        split = np.full(len(group), "train", dtype=object)
        for g in np.unique(group):
            rows = np.random.default_rng([self.seed, int(g), 29]).permutation(
                np.flatnonzero(group == g)
            )
            test = max(1, round(self.test_share * len(rows)))
            validation = max(1, round(self.validation_share * len(rows)))
            split[rows[:test]] = "test"
            split[rows[test : test + validation]] = "validation"
        return split


def metadata_digest(path: str) -> str:
    """SHA-256 of the folder's metadata file and of its images' names and sizes; "" without one."""
    filesystem, root = fsspec.core.url_to_fs(path)
    digest = hashlib.sha256()
    if not filesystem.isdir(root):
        return ""
    for name, facts in sorted(filesystem.find(root, detail=True).items()):
        digest.update(f"{name.removeprefix(root)} {facts['size']}\n".encode())
        if name.removeprefix(root).lstrip("/") in ("metadata.csv", "metadata.parquet"):
            digest.update(filesystem.cat_file(name))
    return digest.hexdigest()


def to_rgb_bytes(data: bytes, size: int | None = None) -> bytes:
    """An encoded image as 8-bit RGB: the same bytes if it is so already, else PNG.

    EXIF rotation is applied; transparency is laid on white; 16-bit gray is scaled to 8 bit; CMYK,
    palette and gray are converted. `size`: centre square, resized to this side in pixels.

    Raises ValueError or OSError when the bytes are no image that can be read whole.
    """
    image = Image.open(io.BytesIO(data))
    image.load()
    turned = ImageOps.exif_transpose(image)
    upright = image.getexif().get(ORIENTATION, 1) == 1
    if image.mode == "RGB" and upright and size is None:
        return data
    rgb = _to_rgb(turned)
    if size is not None:
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    rgb.save(buffer, format="PNG")
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64) / 257.0
        if levels.min() < 0 or levels.max() > 255:
            raise ValueError("integer image beyond 16 bit")
        return Image.fromarray(np.round(levels).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point image: its range is unknown")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _read(read: Any, file: Any, where: str) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = read(file)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(f"{where}: cannot be read as a table: {error}") from None
    return frame


def _names(column: pd.Series) -> tuple[str, ...]:
    return tuple(str(value) for value in sorted(column.unique()))


def _codes(column: pd.Series) -> np.ndarray:
    values = sorted(column.unique())
    return column.map({value: i for i, value in enumerate(values)}).to_numpy(np.int64)


def _read_splits(column: pd.Series) -> list[str]:
    unknown = sorted({str(s) for s in column if str(s).lower() not in SPLIT_NAMES})
    if unknown:
        raise DataError(
            f"metadata: split {', '.join(unknown)} unknown; expected train, validation or test. "
            "Fix: rename, or drop the column for a split stratified by group"
        )
    return [SPLIT_NAMES[str(split).lower()] for split in column]


def _leaves(name: str) -> bool:
    return posixpath.isabs(name) or "\\" in name or posixpath.normpath(name).startswith("..")


def _some(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(str(name) for name in names[:3]) + more
