"""Foreign pictures: formats by name, bounded before decoding, pixels and nothing else."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, features

from raysynth.datasets.bare import without_metadata
from raysynth.datasets.pictures import FORMATS, Unreadable, read_files, to_rgb_bytes

NOISE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
SECRET = b"GPS 48.8584 N 2.2945 E"


def encode(image: Image.Image, fmt: str, **save) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=fmt, **save)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x010F] = SECRET.decode()
    return found


def picture() -> Image.Image:
    return Image.fromarray(NOISE)


CARRIERS = {
    "jpeg": lambda: encode(picture(), "JPEG", exif=exif(), comment=SECRET, icc_profile=SECRET),
    "progressive": lambda: encode(picture(), "JPEG", progressive=True, quality=95, exif=exif()),
    "restarts": lambda: encode(picture(), "JPEG", restart_marker_blocks=1, xmp=SECRET),
    "adobe": lambda: encode(picture(), "JPEG", keep_rgb=True, exif=exif()),
    "trailer": lambda: encode(picture(), "JPEG") + SECRET,
    "phone": lambda: encode(
        picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 24))], exif=exif()
    ),
    "png": lambda: encode(picture(), "PNG", exif=exif(), icc_profile=SECRET) + SECRET,
    "webp": lambda: encode(picture(), "WEBP", exif=exif(), xmp=SECRET),
    "webp lossless": lambda: encode(picture(), "WEBP", lossless=True, exif=exif()),
}


@pytest.mark.parametrize("kind", list(CARRIERS))
def test_pixels_are_kept_as_they_are_coded_and_metadata_is_not(kind):
    data = CARRIERS[kind]()
    stored = to_rgb_bytes(data)
    assert SECRET in data and SECRET not in stored and b"Exif" not in stored
    assert stored[:3] == data[:3] and len(stored) < len(data)  # not encoded again
    np.testing.assert_array_equal(pixels(stored), pixels(data))
    assert to_rgb_bytes(stored) == stored


@pytest.mark.parametrize("fmt", ["TIFF", "BMP", "GIF"])
def test_other_formats_are_stored_as_png(fmt):
    data = encode(picture().quantize() if fmt == "GIF" else picture(), fmt)
    stored = to_rgb_bytes(data)
    assert stored.startswith(b"\x89PNG")
    np.testing.assert_array_equal(pixels(stored), pixels(data))


def test_a_scaled_picture_carries_no_metadata_either():
    stored = to_rgb_bytes(CARRIERS["png"](), size=16)
    assert SECRET not in stored and pixels(stored).shape == (16, 16, 3)


def test_a_transparent_colour_of_an_rgb_picture_is_laid_on_white():
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    image.putpixel((0, 0), (200, 0, 0))
    stored = pixels(to_rgb_bytes(encode(image, "PNG", transparency=(10, 20, 30))))
    assert stored[0, 0].tolist() == [200, 0, 0] and (stored[1:] == 255).all()


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "GIF", "TIFF"])
def test_the_first_frame_of_several_is_taken(fmt):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    stored = to_rgb_bytes(data)
    assert getattr(Image.open(io.BytesIO(stored)), "n_frames", 1) == 1
    np.testing.assert_array_equal(pixels(stored), pixels(data))


@pytest.mark.parametrize("fmt", ["EPS", "PPM", "TGA", "DDS", "JPEG2000", "ICNS", "PCX"])
def test_formats_that_are_not_named_are_not_opened(tmp_path, fmt):
    (tmp_path / "a.png").write_bytes(encode(picture(), fmt))
    (read,) = read_files(str(tmp_path), ["a.png"], None)
    assert read == Unreadable(f"none of the formats that are read ({', '.join(FORMATS)})")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read():
    assert to_rgb_bytes(encode(picture(), "AVIF")).startswith(b"\x89PNG")


def declared(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header declares any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_pixels_are_bounded_by_the_header_before_anything_is_decoded(tmp_path):
    sizes = {"a.png": (12_000, 12_000), "b.png": (14_000, 13_000), "c.png": (9, 8_388_615)}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(declared(*size))
    tracemalloc.start()
    read = read_files(str(tmp_path), list(sizes), None)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert [each.reason for each in read] == [
        f"{megapixels} megapixels, more than dataset.max_megapixels=64"
        for megapixels in (144, 182, 75)
    ]


def test_more_pixels_are_read_where_the_configuration_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(Image.new("1", (1200, 1000)), "PNG"))
    assert isinstance(read_files(str(tmp_path), ["a.png"], 8, 1.0)[0], Unreadable)
    assert isinstance(read_files(str(tmp_path), ["a.png"], 8, 1.3)[0], bytes)


def test_a_file_of_more_bytes_than_its_pixels_could_have_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(8_000_001)
    assert read_files(str(tmp_path), ["a.png"], None, 1.0) == [
        Unreadable("more than 8,000,000 bytes")
    ]


def test_why_a_picture_cannot_be_read_is_said(tmp_path):
    whole = encode(picture(), "PNG")
    broken = {
        "cut.png": (whole[: len(whole) // 2], "truncated"),
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"no picture", "none of the formats that are read"),
        "float.tiff": (encode(Image.new("F", (4, 4)), "TIFF"), "floating-point image"),
        "deep.tiff": (
            encode(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"),
            "beyond 16 bit",
        ),
    }
    for name, (data, _) in broken.items():
        (tmp_path / name).write_bytes(data)
    read = read_files(str(tmp_path), [*broken, "gone.png"], None)
    for found, (_, said) in zip(read, broken.values(), strict=False):
        assert isinstance(found, Unreadable) and said in found.reason
    assert "No such file" in read[-1].reason


@pytest.mark.parametrize("kind", list(CARRIERS))
def test_mutated_bytes_are_read_or_refused_with_a_reason(tmp_path, kind):
    data, rng = CARRIERS[kind](), np.random.default_rng(1)
    names = []
    for number in range(40):
        mutated = bytearray(data[: rng.integers(1, len(data) + 1)] if number % 2 else data)
        for place in rng.integers(0, len(mutated), 3):
            mutated[place] = rng.integers(0, 256)
        names.append(f"{number}.bin")
        (tmp_path / names[-1]).write_bytes(mutated)
    for name, read in zip(names, read_files(str(tmp_path), names, None), strict=True):
        if isinstance(read, bytes):
            seen = pixels((tmp_path / name).read_bytes())
            np.testing.assert_array_equal(pixels(read), seen)
        else:
            assert 0 < len(read.reason) <= 110


def test_what_is_not_built_as_its_format_says_has_no_bare_form():
    for data in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X"):
        assert without_metadata(data) is None
