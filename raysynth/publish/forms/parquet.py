"""parquet: a table of images with all columns, `data/<split>-<number>.parquet`.

`label`, `attribute` and `group` have their names (`ClassLabel`), and images decode.
"""

from __future__ import annotations

from raysynth.publish.form import Files, Form, Piece
from raysynth.storage.tables import to_parquet


def _files(piece: Piece) -> Files:
    return {f"data/{piece.split}-{piece.number:05d}.parquet": to_parquet(piece.rows)}


PART = Form(
    title="Parquet",
    source="Hugging Face datasets, pandas, Polars, DuckDB, Spark",
    files=_files,
    load="""\
from datasets import load_dataset

images = load_dataset("{folder}")
""",
)
