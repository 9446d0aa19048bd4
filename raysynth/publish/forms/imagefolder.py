"""imagefolder: image files in `<split>/<label>/<attribute>/`, a metadata.parquet in each split.

The folders are labels to whoever reads folders alone (torchvision, Keras); the table has the
columns that Hugging Face's `imagefolder` reads beside them, with their types: in a CSV, a column
that is empty in one split is of another type there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from raysynth.publish.form import Files, Form, Piece, file_name, images_of, known_of, suffix_of


def _files(piece: Piece) -> Files:
    return {
        f"{piece.split}/{_path(name, image, row)}": image for name, image, row in images_of(piece)
    }


def _path(name: str, image: bytes, row: Mapping[str, Any]) -> str:
    """An image's file below its split."""
    named = [row[key] for key in ("label", "attribute") if row[key] != ""]
    folders = [file_name(name or "unknown") for name in named]
    return "/".join([*folders, f"{name}.{suffix_of(image)}"])


def _note(piece: Piece) -> pa.Table:
    paths = [_path(name, image, row) for name, image, row in images_of(piece)]
    return known_of(piece).add_column(0, "file_name", pa.array(paths, pa.string()))


PART = Form(
    title="ImageFolder",
    source="Hugging Face datasets, torchvision, Keras",
    files=_files,
    load="""\
from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="{folder}")
""",
    note=_note,
)
