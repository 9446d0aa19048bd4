"""The two Parquet tables of DESIGN.md: schemas, metadata, reading and writing."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from raysynth.errors import DamagedError, DataError
from raysynth.groups.groups import Groups
from raysynth.sides import Size, sides_of
from raysynth.storage.files import Storage, make_folder, open_storage, patiently, write_atomic
from raysynth.terminal import masked

STORED = ("PNG", "JPEG", "WEBP")
"""Formats of the tables' images: no other parser is asked to read them."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE_COLUMN = "image"
"""Nearly all bytes of a table."""
REAL = pa.schema(
    [
        ("id", pa.string()),
        ("image", IMAGE),
        ("label", pa.int64()),
        ("attribute", pa.int64()),
        ("group", pa.int64()),
        ("split", pa.string()),
    ]
)
CANDIDATE = pa.schema(
    [
        *REAL,
        pa.field("cluster", pa.int32()),
        pa.field("generator", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("source", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("negative_prompt", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("guidance_scale", pa.float32()),
        pa.field("steps", pa.int32()),
    ]
)
"""A generated image; what its scorers say stands in further columns (`scoring.columns`)."""
ROW_GROUP_BYTES = 4 * 2**20
"""What a reader of some rows reads at least: ten images of 512 pixels, 500 of 64."""
_HF_TYPES = {"float": "float32"}  # Arrow prints float32 as `float`
SPLITS = ("train", "validation", "test")


def with_groups(schema: pa.Schema, groups: Groups) -> pa.Schema:
    """The schema with class and attribute names, and Hugging Face's features, in its metadata."""
    features: dict[str, dict[str, object]] = {
        field.name: {"dtype": _HF_TYPES.get(str(field.type), str(field.type)), "_type": "Value"}
        for field in schema
    }
    features["image"] = {"_type": "Image"}
    # Of int64 columns: `datasets` drops the names of any other (tables of before have int32).
    named = {"label": groups.label_names, "attribute": groups.attribute_names}
    for name, names in (named | {"group": groups.names}).items():
        features[name] = {"names": list(names), "_type": "ClassLabel"}
    return schema.with_metadata(
        {
            "raysynth": json.dumps(groups.to_dict()),
            "huggingface": json.dumps({"info": {"features": features}}),
        }
    )


def with_train_counts(schema: pa.Schema, counts: np.ndarray) -> pa.Schema:
    """The schema with the training images, [G], of its groups: where training has other ones."""
    found = json.dumps([int(count) for count in counts])
    return schema.with_metadata({**schema.metadata, "train_counts": found})


def train_counts_of(schema: pa.Schema) -> np.ndarray | None:
    """[G] what `with_train_counts` wrote; None: training images are grouped as these are."""
    found = (schema.metadata or {}).get(b"train_counts")
    return None if found is None else np.asarray(json.loads(found), np.int64)


def groups_of(schema: pa.Schema) -> Groups:
    """The groups written into a table's metadata by `with_groups`."""
    return Groups.from_dict(json.loads((schema.metadata or {})[b"raysynth"]))


def parquet_files(folder: str) -> list[str]:
    """The Parquet files below a folder or URI, sorted; names as this filesystem gives them."""
    storage, path = open_storage(folder)
    return sorted(name for name in storage.find(path) if name.endswith(".parquet"))


def split_files(real: str, split: str) -> list[str]:
    """Paths or URIs of the real table's files of a split, in name order.

    Raises
    ------
    DataError
        When there are none.
    """
    names = [name.rsplit("/", 1)[-1] for name in parquet_files(real)]
    files = [f"{real}/{name}" for name in names if name.startswith(f"{split}-")]
    if not files:
        raise DataError(
            f"{real}: no {split}-*.parquet file; expected the real table that ingest writes. "
            "Fix: run the ingest stage again"
        )
    return files


def read_table(
    folder: str, columns: Sequence[str] | None = None, files: Sequence[str] | None = None
) -> pa.Table:
    """One table from the Parquet files below a folder or URI (or from `files`), in name order.

    Raises
    ------
    DataError
        There is no file, a file cannot be read, or the files do not fit together.
    """
    parts = list(read_parts(folder, columns, files))
    if not parts:
        raise DataError(
            f"{masked(folder)}: no Parquet file; expected a table. Fix: run the stage that writes "
            "it again"
        )
    with _reading(folder):  # permissive: labels of tables made before are int32
        return pa.concat_tables(parts, promote_options="permissive")


def read_parts(
    folder: str,
    columns: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    ids: pa.Array | None = None,
) -> Iterator[pa.Table]:
    """As `read_table`, a part at a time: a large data set's images do not fit into memory.

    A part is a file; with `ids` (strings) it is a row group's rows with these ids, and row groups
    that hold none are not read.

    Raises
    ------
    DataError
        A file is missing or cut off, or lacks one of the columns.
    """
    storage, _ = open_storage(folder)
    wanted = list(columns) if columns else None
    for name in files if files is not None else parquet_files(folder):
        all_of_it = ids is None and (wanted is None or IMAGE_COLUMN in wanted)
        with _reading(name), _opened(storage, name, whole=all_of_it, ahead=ids is None) as file:
            opened = partial(pq.ParquetFile, file, page_checksum_verification=True)
            parquet = patiently(opened, name)
            _require(parquet, wanted, name)
            read = partial(patiently, path=name)
            if ids is None:
                yield read(partial(parquet.read, columns=wanted))
                continue
            known = read(partial(parquet.read, columns=["id"]))["id"]
            chosen, first = pc.is_in(known, value_set=ids), 0
            for number in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(number).num_rows
                mine = chosen.slice(first, rows)
                if pc.any(mine).as_py():
                    yield read(partial(parquet.read_row_group, number, columns=wanted)).filter(mine)
                first += rows


def _opened(storage: Storage, name: str, *, whole: bool, ahead: bool) -> Any:
    """A file as Arrow reads it.

    An object store is asked once where the whole is wanted. Without `ahead`, of a few rows, file
    systems do not fetch more than is asked for.
    """
    if whole and not storage.is_disk:
        return pa.BufferReader(storage.cat_file(name))
    return storage.open(name, "rb", **({} if ahead else {"cache_type": "none"}))


def schema_of(path: str) -> pa.Schema:
    """The schema of a Parquet file at a path or URI; raises DataError where it is cut off."""
    storage, name = open_storage(path)
    with _reading(path), storage.open(name, "rb") as file:
        return patiently(partial(pq.ParquetFile, file), path).schema_arrow


def count_rows(folder: str, files: Sequence[str]) -> int:
    """Rows of the Parquet files below a folder or URI; raises DataError where one is cut off."""
    return sum(footer.num_rows for footer in read_footers(folder, files))


def read_footers(folder: str, files: Sequence[str]) -> Iterator[pq.FileMetaData]:
    """What Parquet files say of themselves; raises DataError where one is cut off."""
    storage, _ = open_storage(folder)
    for name in files:
        with _reading(name), storage.open(name, "rb") as file:
            yield patiently(partial(pq.ParquetFile, file), name).metadata


def _require(parquet: pq.ParquetFile, columns: Sequence[str] | None, name: str) -> None:
    """Refuse a file without one of the columns: Arrow would leave it out in silence."""
    if missing := sorted(set(columns or ()) - set(parquet.schema_arrow.names)):
        raise DataError(
            f"{masked(name)}: no column {', '.join(missing)}; got "
            f"{', '.join(parquet.schema_arrow.names)[:200]}. Fix: delete the file, and run again"
        )


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """What Arrow says of a file that is missing, changed or no Parquet, as a DamagedError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedError(
            f"{masked(name)}: cannot be read ({str(error).strip()[:200]}); expected a whole "
            "Parquet file. Fix: delete it, and run again: it is made again",
            name,
        ) from error


def write_table(table: pa.Table, path: str) -> None:
    """One Parquet file (zstd) at a path or URI, whole or not at all; parents are made."""
    make_folder(path.rsplit("/", 1)[0])
    write_atomic(path, to_parquet(table))


def to_parquet(table: pa.Table) -> bytes:
    """A Parquet file (zstd) of row groups of about ROW_GROUP_BYTES."""
    rows = max(1, table.num_rows * ROW_GROUP_BYTES // max(table.nbytes, 1))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=rows, write_page_checksum=True)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of one [H, W, 3] uint8 image, or of an [H, W] grey one."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


class SizesDifferError(ValueError):
    """Images of several sizes cannot be one array."""


def decode_images(column: pa.ChunkedArray | pa.Array, size: Size | None = None) -> np.ndarray:
    """[N, H, W, 3] uint8 pixels of an `image` column.

    Parameters
    ----------
    size : of the centre that is taken, resized (bicubic); None: as they are.

    Raises
    ------
    SizesDifferError
        When the images differ in size and no `size` is given.
    """
    return decode_bytes(pc.struct_field(column, "bytes"), size)


def size_of(image: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, pixels, from its header."""
    return Image.open(io.BytesIO(image), formats=STORED).size


def stored_side(real: str) -> int:
    """Side in pixels of the real table's images as they are stored, by one of them.

    `real`: folder or URI of the table.
    """
    part = next(read_parts(real, ["image"], split_files(real, "validation")[:1]))
    return int(decode_images(part["image"].slice(0, 1)).shape[1])


def decode_bytes(column: pa.ChunkedArray | pa.Array, size: Size | None = None) -> np.ndarray:
    """As `decode_images`, of a column of encoded images."""
    height, width = (0, 0) if size is None else sides_of(size)
    pixels = np.zeros((0, height, width, 3), np.uint8)
    for place, data in enumerate(column):  # chunk by chunk: one array holds 2 GiB at most
        image = Image.open(io.BytesIO(data.as_py()), formats=STORED).convert("RGB")
        if size is not None and image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        if not place:
            pixels = np.empty((len(column), image.height, image.width, 3), np.uint8)
        if pixels.shape[1:3] != (image.height, image.width):
            raise SizesDifferError("images differ in size; expected one size or a `size`")
        pixels[place] = np.asarray(image)
    return pixels
