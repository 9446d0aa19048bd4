"""Scored pixels -> rows of the synthetic table; imported by small tasks, so nothing heavy here."""

from __future__ import annotations

import os
import socket

import numpy as np
import pyarrow as pa

from raysynth.storage.tables import SYNTHETIC, encode_png
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, Stopwatch

BLOCK = pa.schema([*SYNTHETIC, ROW, COLUMN])
"""What the block files hold: the synthetic table's columns, the row of the plan, the spans."""


def encode_rows(rows: pa.Table) -> pa.Table:
    """Scored pixels -> rows of the synthetic table, images as PNG; with `row` and `spans`."""
    if not rows.num_rows:
        return BLOCK.empty_table()
    watch = Stopwatch(f"{socket.gethostname()}-{os.getpid()}", rows.num_rows)
    with watch.part("encode"):
        images = [
            {"bytes": encode_png(_image(pixels)), "path": f"{name}.png"}
            for name, pixels in zip(rows["id"].to_pylist(), rows["pixels"].to_pylist(), strict=True)
        ]
    earlier = [span for spans in rows["spans"].to_pylist() for span in spans or ()]
    columns = {
        "image": pa.array(images, SYNTHETIC.field("image").type),
        "split": pa.array(["train"] * rows.num_rows),
        "spans": watch.column(earlier),
    }
    return pa.table(
        [columns[name] if name in columns else rows[name] for name in BLOCK.names], schema=BLOCK
    )


def _image(pixels: bytes) -> np.ndarray:
    side = round((len(pixels) / 3) ** 0.5)
    return np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
