"""Scored pixels -> rows of the synthetic table; imported by small tasks, so nothing heavy here."""

from __future__ import annotations

import os
import socket
from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.sides import Sides
from raysynth.storage.marks import Maker, marked
from raysynth.storage.tables import CANDIDATE, encode_png
from raysynth.synthesis.specs import ROW
from raysynth.synthesis.timeline import COLUMN, Stopwatch


def encode_rows(
    rows: pa.Table, scores: pa.Schema, maker: Maker, size: Sides | None = None
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Scored pixels -> rows of the synthetic table, images as PNG, with `row`; and their spans.

    Every image says what `maker` knows of it (`storage.marks`).

    Parameters
    ----------
    scores : the scorers' columns.
    size : height and width of the images, pixels; None: they are squares.
    """
    watch = Stopwatch(f"{socket.gethostname()}-{os.getpid()}", rows.num_rows)
    with watch.part("encode"):
        said = rows.select(["id", "pixels", "adapter", "seed", "source"]).to_pylist()
        images = [{"bytes": _png(row, maker, size), "path": f"{row['id']}.png"} for row in said]
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


def _png(row: dict[str, Any], maker: Maker, size: Sides | None) -> bytes:
    packet = maker.packet(row["adapter"], row["seed"], edited=bool(row["source"]))
    return marked(encode_png(_image(row["pixels"], size)), packet)


def _image(pixels: bytes, size: Sides | None) -> np.ndarray:
    side = round((len(pixels) / 3) ** 0.5)
    return np.frombuffer(pixels, np.uint8).reshape(*(size or (side, side)), 3)
