"""Scored pixels -> rows of the synthetic table; imported by small tasks, so nothing heavy here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.tables import SYNTHETIC, encode_png


def encode_rows(rows: pa.Table) -> pa.Table:
    """Scored pixels -> rows of the synthetic table, images as PNG."""
    images = []
    for name, pixels in zip(rows["id"].to_pylist(), rows["pixels"].to_pylist(), strict=True):
        side = round((len(pixels) / 3) ** 0.5)
        image = np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
        images.append({"bytes": encode_png(image), "path": f"{name}.png"})
    columns = {
        "image": pa.array(images, SYNTHETIC.field("image").type),
        "split": pa.array(["train"] * rows.num_rows),
    }
    return pa.table(
        [columns[name] if name in columns else rows[name] for name in SYNTHETIC.names],
        schema=SYNTHETIC,
    )
