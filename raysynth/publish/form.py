"""What a layout of exported images is: how rows become files, and how these are loaded again.

A file of `forms` each; another package adds one by an entry point of the group
`raysynth.publish.forms`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysynth.groups.groups import Groups
from raysynth.registry import Registry

IMAGE = "image"


@dataclass(frozen=True)
class Piece:
    """Some rows of one split, as they are written at a time."""

    rows: pa.Table
    """`id`, `image`, `label`, `attribute`, `group`, `split` and what is known besides."""
    number: int
    """Within its split."""
    groups: Groups

    @property
    def split(self) -> str:
        """train, validation or test."""
        return str(self.rows["split"][0].as_py())


Files = Mapping[str, bytes]
"""Path below the exported folder -> content."""


@dataclass(frozen=True)
class Form:
    """One value of `--form`.

    Parameters
    ----------
    title, source : what it is called, and who reads it.
    files : the files of a piece.
    load : Python that loads the exported folder {folder}.
    note : a table that is kept of a piece; those of a split become its `<split>/metadata.parquet`
        when all are there. None: all is in the files.
    """

    title: str
    source: str
    files: Callable[[Piece], Files]
    load: str
    note: Callable[[Piece], pa.Table] | None = None


FORMS: Registry[Form] = Registry("raysynth.publish.forms", "form")
"""The forms that there are, one file each, called as their files."""


def file_name(identity: str) -> str:
    """An image's name as a file's: letters, digits, `_` and `-`; distinct for distinct ids."""
    plain = re.sub(r"[^\w-]+", "-", identity, flags=re.ASCII).strip("-")
    if plain == identity:
        return plain
    return f"{plain[-60:]}-{blake2b(identity.encode(), digest_size=5).hexdigest()}".lstrip("-")


def suffix_of(data: bytes) -> str:
    """`png`, `jpg` or `webp`, by the first bytes of an encoded image."""
    return "png" if data[:4] == b"\x89PNG" else "webp" if data[:4] == b"RIFF" else "jpg"


def known_of(piece: Piece) -> pa.Table:
    """The rows without the images, and with labels, attributes and groups by name."""
    rows, groups = piece.rows.drop_columns([IMAGE]), piece.groups
    named = {"label": groups.label_names, "attribute": groups.attribute_names}
    for column, names in (named | {"group": groups.names}).items():
        of_rows = [names[i] if i >= 0 else None for i in rows[column].to_pylist()]
        place = rows.column_names.index(column)
        rows = rows.set_column(place, column, pa.array(of_rows, pa.string()))
    return rows.replace_schema_metadata(None)


def images_of(piece: Piece) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """(name of its file, encoded image, `known_of`) of each row.

    A photograph's name is apart from those of generated images, whatever it is called.
    """
    images = pc.struct_field(piece.rows[IMAGE], "bytes")
    for row, image in zip(known_of(piece).to_pylist(), images, strict=True):
        origin = "" if row["synthetic"] else "real-"
        yield origin + file_name(row["id"]), image.as_py(), row
