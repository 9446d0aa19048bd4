"""Scored pixels -> rows of the synthetic table; imported by small tasks, so nothing heavy here."""

from __future__ import annotations

import os
import socket

import numpy as np
import pyarrow as pa

from raysynth.storage.tables import CANDIDATE, encode_png
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, Stopwatch


def encode_rows(rows: pa.Table, scores: pa.Schema) -> pa.Table:
    """Scored pixels -> rows of the synthetic table, images as PNG; with `row` and `spans`.

    `scores`: the scorers' columns.
    """
    block = pa.schema([*CANDIDATE, *scores, ROW, COLUMN])
    if not rows.num_rows:
        return block.empty_table()
    watch = Stopwatch(f"{socket.gethostname()}-{os.getpid()}", rows.num_rows)
    with watch.part("encode"):
        images = [
            {"bytes": encode_png(_image(pixels)), "path": f"{name}.png"}
            for name, pixels in zip(rows["id"].to_pylist(), rows["pixels"].to_pylist(), strict=True)
        ]
    earlier = [span for spans in rows["spans"].to_pylist() for span in spans or ()]
    columns = {
        "image": pa.array(images, CANDIDATE.field("image").type),
        "split": pa.array(["train"] * rows.num_rows),
        "spans": watch.column(earlier),
    }
    return pa.table(
        [columns[name] if name in columns else rows[name] for name in block.names], schema=block
    )


def _image(pixels: bytes) -> np.ndarray:
    side = round((len(pixels) / 3) ** 0.5)
    return np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
