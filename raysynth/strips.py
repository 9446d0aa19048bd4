"""Strips: some images of one kind side by side, and several strips as one captioned picture.

What is made of generated images says so (`storage.marks`), in the pictures' `info["xmp"]`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from raysynth.errors import DataError
from raysynth.storage.marks import Maker, marked, packet_in
from raysynth.storage.tables import decode_images, read_parts
from raysynth.terminal import masked

COLUMNS = 6
ROWS = 3
MOST_PIXELS = 96  # side of a thumbnail; larger images are reduced to it
SMALL_PIXELS = 64  # up to here every pixel is shown as it is, without loss
GAP = 1


@dataclass(frozen=True)
class Strip:
    """Some images of one kind of a group-cluster, and how many there are in all."""

    kind: str
    total: int
    image: Image.Image | None


def spaced(count: int, most: int) -> np.ndarray:
    """At most `most` positions, evenly over range(count)."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def thumbnails(folder: str, ids: Sequence[str]) -> dict[str, Image.Image]:
    """Reduced images by id; a table may exceed memory. DataError: some are not there."""
    found: dict[str, Image.Image] = {}
    for rows in read_parts(folder, ["id", "image"], ids=pa.array(ids, pa.string())):
        for position, identity in enumerate(rows["id"].to_pylist()):
            image = Image.fromarray(decode_images(rows["image"].slice(position, 1))[0])
            if packet := packet_in(rows["image"][position]["bytes"].as_py()):
                image.info["xmp"] = packet
            image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
            found[identity] = image
    if missing := set(ids) - set(found):
        raise DataError(
            f"{masked(folder)}: {len(missing)} of {len(set(ids))} images are not there, e.g. "
            f"{min(missing)}; expected all of its table. Fix: raysynth verify RUN says which file "
            "has changed, and how it is made again"
        )
    return found


def mosaic(images: Sequence[Image.Image], most: int = COLUMNS) -> Image.Image | None:
    """The images side by side, `most` per row, on a transparent ground; None without images."""
    if not images:
        return None
    side = max(max(image.size) for image in images)
    columns = min(most, len(images))
    rows = -(-len(images) // columns)
    size = (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP)
    canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        canvas.paste(image, (column * (side + GAP), row * (side + GAP)))
    return _made_of(images, canvas)


def _made_of(images: Sequence[Image.Image], canvas: Image.Image) -> Image.Image:
    """The canvas, marked where generated images are on it."""
    generated = ["xmp" in image.info for image in images]
    if any(generated):
        canvas.info["xmp"] = Maker().packet(edited=not all(generated))
    return canvas


def captioned(title: str, shown: Sequence[Strip]) -> Image.Image:
    """Strips below each other with their kinds and totals."""
    strips = [(strip, _enlarged(strip.image)) for strip in shown if strip.image]
    width = max([420, *(image.width for _, image in strips)]) + 32
    height = 48 + sum(image.height + 40 for _, image in strips)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((16, 14), title, fill="black", font_size=18)
    top = 48
    for strip, image in strips:
        draw.text((16, top), f"{strip.kind} ({strip.total:,})", fill="#555", font_size=14)
        canvas.paste(image, (16, top + 20), image)
        top += image.height + 40
    return _made_of([strip.image for strip in shown if strip.image], canvas)


def is_small(image: Image.Image) -> bool:
    """Whether a strip is of images whose every pixel is shown."""
    return image.height <= ROWS * (SMALL_PIXELS + GAP)


def _enlarged(image: Image.Image) -> Image.Image:
    scale = 3 if is_small(image) else 1
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    packet = image.info.get("xmp")
    return marked(buffer.getvalue(), packet) if packet else buffer.getvalue()
