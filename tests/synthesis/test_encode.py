"""Drawn pixels become PNGs that say what drew them; nothing else of the table depends on it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.scoring.columns import scores_of
from raysynth.storage.marks import Maker, packet_in
from raysynth.storage.tables import CANDIDATE, decode_images
from raysynth.synthesis.encode import encode_rows
from raysynth.synthesis.specs import ROW, SPECS
from raysynth.synthesis.timeline import COLUMN


def drawn(pixels: np.ndarray) -> pa.Table:
    """[B, side, side, 3] as an actor hands them on; the second is an edit."""
    count = len(pixels)
    said = {
        "id": [f"g0-c0-{n:06d}" for n in range(count)],
        "adapter": ["0-0"] * count,
        "seed": [2**62 + n for n in range(count)],
        "source": ["real-1" if n == 1 else "" for n in range(count)],
    }
    columns = [
        pa.array(said.get(one.name, [None] * count), one.type) for one in SPECS if one != ROW
    ]
    names = [one.name for one in SPECS if one != ROW]
    whole = pa.table(columns, names=names)
    raw = pa.array([image.tobytes() for image in pixels], pa.binary(pixels[0].nbytes))
    whole = whole.append_column("pixels", raw).append_column(ROW, pa.array(range(count)))
    return whole.append_column(COLUMN, pa.nulls(count, COLUMN.type))


def test_images_that_are_no_squares_keep_their_size():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 12, 3, 3), np.uint8)
    table, _ = encode_rows(drawn(pixels), scores_of([]), Maker(), (12, 3))
    np.testing.assert_array_equal(decode_images(table["image"]), pixels)


def test_every_image_says_what_drew_it_and_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    maker = Maker("owner/model", adapters={"0-0": "a" * 64})
    table, _ = encode_rows(drawn(pixels), scores_of([]), maker)
    np.testing.assert_array_equal(decode_images(table["image"]), pixels)
    assert table.schema.names[: len(CANDIDATE)] == CANDIDATE.names
    packets = [packet_in(image["bytes"]).decode() for image in table["image"].to_pylist()]
    assert "/trainedAlgorithmicMedia" in packets[0] and f'seed="{2**62}"' in packets[0]
    assert "/compositeWithTrainedAlgorithmicMedia" in packets[1]
    assert all("owner/model" in one and "a" * 64 in one for one in packets)
