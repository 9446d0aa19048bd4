"""Marks: other readers find them, and no pixel is another one."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from raysynth.datasets.bare import without_metadata
from raysynth.storage.marks import CODES, Maker, is_marked, marked, packet_in
from raysynth.strips import Strip, captioned, mosaic, png

MAKER = Maker("owner/model", "c" * 40, {"1-0": "f" * 64})
SAVES = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "webp": {"format": "WEBP"},
    "webp, lossless": {"format": "WEBP", "lossless": True},
    "webp, transparent": {"format": "WEBP"},
    "webp with a profile": {"format": "WEBP", "icc_profile": b"profile"},
}


def encoded(kind: str) -> bytes:
    """An image of 13 x 10 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (10, 13, 3), np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    if "transparent" in kind:
        image.putalpha(100)
    image.save(file, **SAVES[kind])
    return file.getvalue()


@pytest.mark.parametrize("kind", SAVES)
def test_pillow_reads_the_mark_and_the_same_pixels(kind):
    data = encoded(kind)
    found = marked(data, MAKER.packet("1-0", 2**62 + 1))
    before, after = (Image.open(io.BytesIO(each)) for each in (data, found))
    assert before.mode == after.mode
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    packet = ElementTree.fromstring(after.info["xmp"].strip(b"\0"))
    (said,) = packet.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    told = {name.rpartition("}")[2]: value for name, value in said.attrib.items()}
    assert told["DigitalSourceType"] == f"{CODES}trainedAlgorithmicMedia"
    assert told["AISystemUsed"] == "owner/model" and told["adapterSHA256"] == "f" * 64
    assert told["seed"] == str(2**62 + 1)
    assert is_marked(found) and not is_marked(data)
    assert marked(found, b"another") == found
    if "transparent" not in kind:
        assert not is_marked(without_metadata(found))


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_exiftool_reads_it_and_finds_no_fault(kind, tmp_path):
    path = tmp_path / f"image.{kind}"
    path.write_bytes(marked(encoded(kind), MAKER.packet("1-0", 7, edited=True)))
    command = ["exiftool", "-j", "-validate", "-warning", "-XMP:all", str(path)]
    (told,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["DigitalSourceType"] == f"{CODES}compositeWithTrainedAlgorithmicMedia"
    assert told["Seed"] == 7 and told["Validate"] == "OK"


def test_names_are_no_markup_and_what_is_not_known_is_not_said():
    packet = Maker('a<b & "c"').packet("x>y")
    (said,) = ElementTree.fromstring(packet).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    assert 'a<b & "c"' in said.attrib.values() and "x>y" in said.attrib.values()
    assert b"seed" not in packet and b"SHA256" not in packet and b"Version" not in packet
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        marked(b"GIF89a", packet)


def test_pictures_made_of_generated_images_say_so_and_others_do_not():
    real = Image.new("RGB", (8, 8))
    drawn = Image.new("RGB", (8, 8))
    drawn.info["xmp"] = packet_in(marked(encoded("png"), MAKER.packet("1-0", 7)))
    assert not is_marked(png(mosaic([real])))
    assert b"/trainedAlgorithmicMedia" in png(mosaic([drawn, drawn]))
    strips = [Strip("real", 1, mosaic([real])), Strip("kept", 1, mosaic([drawn]))]
    assert b"/compositeWithTrainedAlgorithmicMedia" in png(captioned("both", strips))
