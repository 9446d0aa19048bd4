"""Captions of images in folders: a text beside an image, a metadata table, or a template."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from raysynth.datasets.captions import as_line, decoded, texts_beside
from raysynth.datasets.files import clipped, open_folder
from raysynth.errors import DataError

TABLES = ("metadata.csv", "metadata.jsonl")
"""Tables of captions, in the folder of folders or in one of them."""
COLUMNS = ("caption", "text")
"""The column of captions: ours, and what Hugging Face's trainers call it."""
FILE = "file_name"


def captions_of(path: str, images: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Image -> its own caption, of those that have one; a text beside the image comes first.

    Parameters
    ----------
    path : folder or URI of the folders.
    images, others : names of images and of all other files, relative to `path`.

    Raises
    ------
    DataError
        A table or a text that cannot be read; a table with rows of images that are not there.
    """
    storage, root = open_folder(path)
    found: dict[str, str] = {}
    for name in sorted(others):
        folder, _, file = name.rpartition("/")
        if file in TABLES:
            data = bytes(storage.cat_file(f"{root}/{name}"))
            found |= _of_table(f"{path}/{name}", data, folder, set(images))
    return found | texts_beside(path, images, others)


def _of_table(where: str, data: bytes, folder: str, images: set[str]) -> dict[str, str]:
    """Image -> caption of a table in `folder`, relative to which it names files."""
    rows = _rows(where, decoded(where, data))
    found: dict[str, str] = {}
    gone = []
    for row in rows:
        name, said = str(row.get(FILE) or ""), next(filter(None, map(row.get, COLUMNS)), "")
        whole = posixpath.normpath(f"{folder}/{name}".lstrip("/"))
        if whole not in images:
            gone.append(name or "(empty)")
        elif said := as_line(where, str(said)):
            found[whole] = said
    if gone:
        raise DataError(
            f"{clipped(where)}: {len(gone)} row(s) name no image of these folders, e.g. "
            f"{clipped(gone[0])}; expected {FILE} relative to the table. Fix: correct or remove "
            "them"
        )
    return found


def _rows(where: str, text: str) -> list[Mapping[str, Any]]:
    try:
        if where.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            import pandas as pd

            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
            rows = table.to_dict("records")
    except ValueError as error:
        raise DataError(
            f"{clipped(where)}: cannot be read as a table: {clipped(error)}; expected {FILE} and "
            f"{COLUMNS[0]}. Fix: correct it"
        ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{clipped(where)}: a JSON object per line expected. Fix: correct it")
    if rows and not any(FILE in row and set(COLUMNS) & set(row) for row in rows):
        raise DataError(
            f"{clipped(where)}: columns {clipped(', '.join(rows[0]))}; expected {FILE} and "
            f"{COLUMNS[0]}. Fix: name them so"
        )
    return rows
