"""A foreign picture as 8-bit RGB: formats by name, size bounded before decoding, pixels alone kept.

What is stored shows what was seen, and nothing of where, when and with what it was taken.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from raysynth.datasets.bare import without_metadata
from raysynth.datasets.files import clipped
from raysynth.errors import StorageError
from raysynth.storage.files import Storage, open_storage
from raysynth.storage.tables import STORED

FORMATS = (*STORED, "TIFF", "GIF", "BMP", "AVIF")
"""Those that are opened: every other format is one more parser, and EPS starts a program."""
MEGAPIXELS = 64.0
BYTES_PER_PIXEL = 8
"""Of the largest file that is read: uncompressed 16-bit colour with transparency."""
ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Unreadable:
    """Stands for a picture that cannot be read, and says why."""

    reason: str


def read_files(
    path: str, names: Sequence[str], size: int | None, megapixels: float = MEGAPIXELS
) -> list[bytes | Unreadable]:
    """Encoded 8-bit RGB image of each file below a folder or URI, or why it cannot be read.

    `size`, `megapixels`: as in `to_rgb_bytes`. Raises StorageError when a remote storage cannot be
    reached: that is no fault of a picture.
    """
    storage, root = open_storage(path)
    # A picture that a disk cannot read is a broken one; a remote storage may be away for a moment.
    filesystem = storage.bare if storage.is_disk else storage
    most = int(megapixels * 1e6) * BYTES_PER_PIXEL
    read: list[bytes | Unreadable] = []
    for name in names:
        data = _bytes_of(filesystem, f"{root}/{name}", most)
        try:
            read.append(
                data if isinstance(data, Unreadable) else to_rgb_bytes(data, size, megapixels)
            )
        except Exception as error:  # broken pictures make decoders raise whatever they like
            read.append(Unreadable(_reason(error)))
    return read


def to_rgb_bytes(data: bytes, size: int | None = None, megapixels: float = MEGAPIXELS) -> bytes:
    """An encoded image as 8-bit RGB: PNG, JPEG and WebP that are so already pass, others as PNG.

    EXIF rotation is applied; transparency is laid on white; 16-bit gray is scaled to 8 bit; CMYK,
    palette and gray are converted; of several frames the first is taken. EXIF, comments, profiles
    and whatever else is no pixel is left out, without encoding the pixels again.

    Parameters
    ----------
    size : centre square, resized to this side in pixels; None: as it is.
    megapixels : the most that are decoded, by the header.

    Raises
    ------
    Exception
        When the bytes are no image that can be read whole; ValueError or OSError mostly.
    """
    if not data:
        raise ValueError("the file is empty")
    image = _opened(data, megapixels)
    image.load()
    upright = image.getexif().get(ORIENTATION, 1) == 1
    seen = image.mode == "RGB" and "transparency" not in image.info and upright
    # MPO is what phones write: a JPEG with more pictures behind its end.
    still = image.format == "MPO" or (image.format in STORED and getattr(image, "n_frames", 1) == 1)
    if seen and still and size is None:
        bare = without_metadata(data)
        if bare is not None:
            return bare
    rgb = _to_rgb(ImageOps.exif_transpose(image))
    if size is not None:
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    # A copy of the pixels: Pillow would write the comments and the profile of `rgb` with them.
    Image.fromarray(np.asarray(rgb)).save(buffer, format="PNG")
    return buffer.getvalue()


def _opened(data: bytes, megapixels: float) -> Image.Image:
    """The picture by its header alone, not decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit: its text has the number
        pixels = re.search(r"(\d+) pixels", str(error))
        raise ValueError(_too_large(int(pixels[1]) if pixels else 0, megapixels)) from None
    if image.width * image.height > megapixels * 1e6:
        raise ValueError(_too_large(image.width * image.height, megapixels))
    return image


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


def _bytes_of(filesystem: Any, name: str, most: int) -> bytes | Unreadable:
    """A file's content if it has at most so many bytes; more are not read."""
    local = not isinstance(filesystem, Storage)
    try:
        if local and filesystem.size(name) > most:
            return Unreadable(f"more than {most:,} bytes")
        data: bytes = filesystem.cat_file(name, **({} if local else {"end": most + 1}))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return Unreadable(clipped(error.strerror or type(error).__name__))
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return Unreadable(clipped(error.__cause__))
        raise
    except Exception as error:  # remote file systems raise what their packages do
        if local:
            return Unreadable(_reason(error))
        raise StorageError(
            f"dataset.path: {clipped(name)} cannot be read now: {type(error).__name__}: "
            f"{clipped(error)}. Fix: run the same command again when the storage answers"
        ) from None
    return data if len(data) <= most else Unreadable(f"more than {most:,} bytes")


def _reason(error: Exception) -> str:
    """Why a picture cannot be read, in words that do not change from call to call."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of the formats that are read ({', '.join(FORMATS)})"
    return clipped(str(error) or type(error).__name__)


def _too_large(pixels: int, megapixels: float) -> str:
    return f"{pixels / 1e6:,.0f} megapixels, more than dataset.max_megapixels={megapixels:g}"
