"""Pictures: a file of every usual encoding, changed; what is read can be read again."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image

from raysynth.datasets.pictures import read_files
from raysynth.storage.tables import decode_bytes
from tests.fuzz.harness import Target, UnreadableError
from tests.fuzz.values import changed_bytes

NAME = "picture.bin"
ENCODINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {"transparency": 3}), ("PNG", "LA", {}),
    ("PNG", "1", {}), ("PNG", "I;16", {}), ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    ("PNG", "RGB", {"save_all": True}), ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK",
    {}),
    ("JPEG", "RGB", {"progressive": True, "exif": "turned"}), ("MPO", "RGB", {"save_all": True}),
    ("GIF", "P", {"transparency": 1}), ("GIF", "P", {"save_all": True}), ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True}), ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "CMYK", {"compression": "tiff_deflate"}),
    ("TIFF", "I;16", {}), ("TIFF", "F", {}), ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "P", {"compression": "packbits"}),
    ("BMP", "RGB", {}), ("BMP", "P", {}), ("DIB", "RGB", {}), ("PPM", "RGB", {}), ("PPM", "L", {}),
    ("TGA", "RGBA", {"compression": "tga_rle"}), ("PCX", "P", {}), ("ICO", "RGBA", {}),
    ("ICNS", "RGBA", {}), ("DDS", "RGBA", {}), ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}),
    ("SGI", "RGB", {}), ("EPS", "RGB", {}), ("IM", "RGB", {}), ("MSP", "1", {}), ("XBM", "1", {}),
    ("SPIDER", "F", {}), ("BLP", "P", {}), ("QOI", "RGB", {}), ("PDF", "RGB", {}),
)  # fmt: skip


@cache
def pictures() -> list[bytes]:
    """A small picture in each encoding that this Pillow writes."""
    found = []
    for kind, mode, options in ENCODINGS:
        try:
            found.append(_encoded(kind, mode, dict(options)))
        except (OSError, ValueError, KeyError):
            continue
    return found


def _encoded(kind: str, mode: str, options: dict[str, Any]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode.startswith("I"):
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    if options.pop("exif", None):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    if options.get("save_all"):
        options["append_images"] = [image.rotate(90)]
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@st.composite
def picture(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """Bytes of a picture, changed but for a few, and the side asked for."""
    data = draw(st.sampled_from(pictures()))
    how = draw(st.sampled_from(("changed",) * 8 + ("numbers", "numbers", "joined", "whole")))
    if how == "changed":
        data = draw(changed_bytes(data, 4))
    elif how == "numbers":  # of the header: sizes, offsets, counts
        for _ in range(draw(st.integers(1, 3))):
            at, width = draw(st.integers(0, min(len(data), 96))), draw(st.sampled_from((1, 2, 4)))
            number = draw(
                st.sampled_from((0, 1, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1))
            )
            order = draw(st.sampled_from(("big", "little")))
            data = data[:at] + (number % 256**width).to_bytes(width, order) + data[at + width :]
    elif how == "joined":
        other = draw(st.sampled_from(pictures()))
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    return data, draw(st.sampled_from((None, None, 8, 32)))


def _start(folder: Path) -> Path:
    return folder


def _read(folder: Path, given: tuple[bytes, int | None]) -> tuple[bytes, int | None]:
    (folder / NAME).write_bytes(given[0])
    (found,) = read_files(str(folder), [NAME], given[1])
    if not isinstance(found, bytes):
        raise UnreadableError
    return found, given[1]


def _use(folder: Path, made: tuple[bytes, int | None]) -> None:
    """It is RGB of the side asked for, is read again as it is, and its pixels can be had."""
    data, side = made
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert side is None or image.size == (side, side)
    (folder / NAME).write_bytes(data)
    (again,) = read_files(str(folder), [NAME], None)
    assert again == data, "what was accepted is read otherwise"
    assert decode_bytes(pa.array([data]), 8).shape == (1, 8, 8, 3)


TARGETS = [Target("image bytes", picture(), _start, _read, _use, 4)]
