"""Scored pixels -> rows of the synthetic table; imported by small tasks, so nothing heavy here."""

from __future__ import annotations

import os
import socket
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.storage.tables import CANDIDATE, encode_png
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, Stopwatch


def encode_rows(rows: pa.Table, scores: pa.Schema) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Scored pixels -> rows of the synthetic table, images as PNG, with `row`; and their spans.

    `scores`: the scorers' columns.
    """
    watch = Stopwatch(f"{socket.gethostname()}-{os.getpid()}", rows.num_rows)
    with watch.part("encode"):
        images = [
            {"bytes": encode_png(_image(pixels)), "path": f"{name}.png"}
            for name, pixels in zip(rows["id"].to_pylist(), rows["pixels"].to_pylist(), strict=True)
        ]
    earlier = [span for spans in rows[COLUMN.name].to_pylist() for span in spans or ()]
    columns = {
        "image": pa.array(images, CANDIDATE.field("image").type),
        "split": pa.array(["train"] * rows.num_rows),
    }
    block = pa.schema([*CANDIDATE, *scores, ROW])
    table = pa.table(
        [columns[name] if name in columns else rows[name] for name in block.names], schema=block
    )
    return table, [*earlier, *watch.spans]


def _image(pixels: bytes) -> np.ndarray:
    side = round((len(pixels) / 3) ** 0.5)
    return np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
