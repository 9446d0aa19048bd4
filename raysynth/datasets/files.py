"""Image files of any data set: are they there, in which split, and as 8-bit RGB."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence

import fsspec
import numpy as np
from PIL import Image, ImageOps

from raysynth.errors import DataError

METADATA = (".csv", ".parquet", ".txt")
LEFT_OUT = "left_out"
"""Metadata of a listing's schema: a sentence on the images that its reader left out."""
ORIENTATION = 0x0112  # EXIF tag


def read_files(path: str, names: Sequence[str], size: int | None) -> list[bytes | None]:
    """Encoded 8-bit RGB image of each file below a folder or URI; None where it cannot be read.

    `size`: as in `to_rgb_bytes`.
    """
    filesystem, root = fsspec.core.url_to_fs(path)
    encoded: list[bytes | None] = []
    for name in names:
        try:
            encoded.append(to_rgb_bytes(filesystem.cat_file(f"{root}/{name}"), size))
        except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError):
            encoded.append(None)
    return encoded


def require_files(path: str, names: Sequence[str], source: str, tree: str = "") -> None:
    """Refuse names that leave the folder, are not there, or name a file twice.

    Parameters
    ----------
    names : relative to `path`.
    source : who names them, e.g. "the metadata".
    tree : the layout that is expected, for the message.
    """
    refuse_doubles(path, names, source)
    outside = [name for name in names if _leaves(name)]
    if outside:
        raise DataError(
            f"{path}: {some(outside)} in {source} leaves the folder; expected paths relative to it "
            "without `..`. Fix: move the files into the folder"
        )
    filesystem, root = fsspec.core.url_to_fs(path)
    present = {found.removeprefix(root).lstrip("/") for found in filesystem.find(root)}
    gone = [name for name in names if posixpath.normpath(name) not in present]
    if gone:
        raise DataError(
            f"{path}: {some(gone)} named in {source} but not there. Fix: add the files or remove "
            f"the rows{tree and '; ' + tree}"
        )
    if "file" in filesystem.protocol:
        real = os.path.realpath(root) + os.sep
        linked = [n for n in names if not os.path.realpath(f"{root}/{n}").startswith(real)]
        if linked:
            raise DataError(
                f"{path}: {some(linked)} is a link that leaves the folder. Fix: copy the files "
                "into the folder"
            )


def refuse_doubles(path: str, names: Sequence[str], source: str) -> None:
    """Refuse names of one file in two rows: it may be in two splits, or in two groups."""
    rows = Counter(posixpath.normpath(name) for name in names)
    doubled = [name for name, count in rows.items() if count > 1]
    if doubled:
        raise DataError(
            f"{path}: {some(doubled)} named more than once in {source}; expected a row per file. "
            "Fix: remove doubles"
        )


def deal_splits(
    group: np.ndarray, validation_share: float, test_share: float, seed: int
) -> list[str]:
    """A split per row, stratified by group: at least one image of each split where possible."""
    split = np.full(len(group), "train", dtype=object)
    for g in np.unique(group):
        rows = np.random.default_rng([seed, int(g), 29]).permutation(np.flatnonzero(group == g))
        test = max(1, round(test_share * len(rows)))
        validation = max(1, round(validation_share * len(rows)))
        split[rows[:test]] = "test"
        split[rows[test : test + validation]] = "validation"
    named: list[str] = split.tolist()
    return named


def folder_digest(path: str) -> str:
    """SHA-256 of all names and sizes below a folder and of its metadata files; "" without one."""
    filesystem, root = fsspec.core.url_to_fs(path)
    digest = hashlib.sha256()
    if not filesystem.isdir(root):
        return ""
    for name, facts in sorted(filesystem.find(root, detail=True).items()):
        digest.update(f"{name.removeprefix(root)} {facts['size']}\n".encode())
        if name.endswith(METADATA):
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


def some(names: Iterable[object]) -> str:
    """The first three of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(str(name) for name in names[:3]) + more


def _leaves(name: str) -> bool:
    return posixpath.isabs(name) or "\\" in name or posixpath.normpath(name).startswith("..")
