"""An encoded picture without what is no pixel: the compressed pixels are copied, never encoded.

PNG: the critical chunks (PNG specification, 4.7). JPEG: the frame and its scans, with the JFIF and
Adobe segments that say how colours are coded (ITU-T T.81, B.1; T.872). WebP: the one bitstream, as
a simple file (RFC 9649, 2.5 and 2.6).
"""

from __future__ import annotations

import struct

PNG = b"\x89PNG\r\n\x1a\n"
_SOI, _EOI, _SOS, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_CODING = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""Application segments that say how colours are coded; the others are metadata."""


def without_metadata(data: bytes) -> bytes | None:
    """A PNG, JPEG or still WebP of RGB pixels, with the same pixels and nothing else.

    None: another format, or a file that is not built as its format says.
    """
    try:
        if data.startswith(PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):  # cut off
        return None
    return None


def _png(data: bytes) -> bytes | None:
    kept, place = [PNG], len(PNG)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        if not kind[0] & 0x20:  # a capital first letter: critical
            kept.append(data[place : place + 12 + length])
        place += 12 + length
        if kind == b"IEND":
            return b"".join(kept)
    return None


def _jpeg(data: bytes) -> bytes | None:
    kept, place = [data[:2]], 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == _EOI:
            return b"".join([*kept, data[place : place + 2]])
        (length,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        if marker == _SOS:
            end = _end_of_scan(data, end)
        named = 0xE0 <= marker <= 0xEF or marker == _COMMENT
        coding = data[place + 4 : place + 9] == _CODING.get(marker)
        if coding or not named:
            kept.append(data[place:end])
        place = end
    return None


def _end_of_scan(data: bytes, place: int) -> int:
    """Where the marker after a scan's coded pixels begins: within, 0 or RST follow each 0xFF."""
    while (place := data.find(b"\xff", place)) >= 0:
        after = data[place + 1]
        if after not in (0x00, 0xFF) and not 0xD0 <= after <= 0xD7:
            return place
        place += 1 if after == 0xFF else 2
    raise IndexError("no end of image")


def _webp(data: bytes) -> bytes | None:
    if data[12:16] != b"VP8X":
        (length,) = struct.unpack_from("<I", data, 4)
        return data[: 8 + length]
    place = 12
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        end = place + 8 + length + length % 2
        if data[place : place + 4] in (b"VP8 ", b"VP8L"):
            chunk = data[place:end]
            return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
        place = end
    return None
