"""Data sets: metadata tables, published layouts, file names; listed as a run lists them."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from pydantic import ValidationError

from raysynth.config.files import explain
from raysynth.datasets.contents import folder_digest
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError
from raysynth.groups.groups import Groups
from raysynth.storage.tables import SPLITS, encode_png
from tests.fuzz.harness import Target
from tests.fuzz.values import ODD_WORDS, changed_bytes, scalars, words

NAMES = [f"images/{number:02d}.png" for number in range(48)]
OTHERS = ("a b.png", "é.png", "[1].png", "001.jpg", "sub/x=1/y.png", "empty.png", "no-picture.png")
PNG = encode_png(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


@dataclass
class Place:
    """A data set's folder, and what of it belongs to single inputs."""

    folder: Path
    name: str


def _pictures(folder: Path, names: Any) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes({"empty.png": b"", "no-picture.png": b"GIF89a"}.get(name, PNG))


def _start(name: str) -> Any:
    def start(folder: Path) -> Place:
        _pictures(folder / "data", (*NAMES, *OTHERS))
        os.mkfifo(folder / "data" / "fifo.png")
        (folder / "outside.png").write_bytes(PNG)
        (folder / "data" / "link.png").symlink_to(folder / "outside.png")
        (folder / "data" / "folder.png").mkdir()
        return Place(folder / "data", name)

    return start


def _list(place: Place, settings: dict[str, Any]) -> Any:
    try:
        config = DatasetConfig(name=place.name, path=str(place.folder), **settings)
    except ValidationError as error:
        raise ConfigError(explain(error, None)) from None
    return config, list_dataset(config, 0)


def _use(place: Place, made: Any) -> None:
    """Count, name, digest, and open the first images."""
    config, (dataset, groups, listing) = made
    counts = split_counts(listing, groups)
    assert sum(int(counts[split].sum()) for split in SPLITS) == listing.num_rows > 0
    assert Groups.from_dict(groups.to_dict()) == groups
    names = [groups.name(group) for group in range(groups.count)]
    assert len(set(names)) == groups.count, "two groups of one name"
    assert listing["id"].null_count == 0 and len(set(listing["id"].to_pylist())) == listing.num_rows
    assert folder_digest(str(place.folder))
    images = dataset.images(listing.slice(0, 3))
    assert len(images) == min(3, listing.num_rows)
    assert list_dataset(config, 0)[2].equals(listing), "read again it is another listing"


ROWS = [
    {
        "file_name": name,
        "label": "ab"[number % 2],
        "attribute": "xy"[number // 2 % 2],
        "split": SPLITS[number // 4 % 3],
    }
    for number, name in enumerate(NAMES)
]
CELLS = (
    *ODD_WORDS, *OTHERS, "link.png", "fifo.png", "folder.png", "images/00.png", "./images/01.png",
    "images\\02.png", "IMAGES/03.PNG", "Train", "valid", "testing", "a", "b", "x", "y",
)  # fmt: skip
cells = st.one_of(st.sampled_from(CELLS), words)
settings = st.fixed_dictionaries(
    {},
    optional={
        "severity": st.sampled_from((0.5, 0.9, 0.99)),
        "validation_share": st.sampled_from((0.0, 0.1, 0.2, 0.2, 0.5)),
        "test_share": st.sampled_from((0.0, 0.2, 0.4)),
        "image_size": st.sampled_from((8, 64)),
        "thin_validation": st.booleans(),
        "label_words": st.dictionaries(st.sampled_from(("a", "b", "c")), words, max_size=2),
        "aligned": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xyz"), max_size=1),
    },
)


@st.composite
def table(draw: st.DrawFn, rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows with some cells, rows and columns changed."""
    header = list(rows[0])
    body = [
        list(row.values())
        for row in rows[: draw(st.sampled_from((0, 1, 24, 48, 48, 48, 48, 48, 48, 48)))]
    ]
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        how = draw(
            st.sampled_from(("cell", "cell", "column", "drop", "row", "head", "extra", "short"))
        )
        row = draw(st.integers(0, max(len(body) - 1, 0)))
        column = draw(st.integers(0, max(len(header) - 1, 0)))
        if how == "cell" and body and column < len(body[row]):
            body[row][column] = draw(cells)
        elif how == "column" and body:
            value = draw(st.lists(cells, min_size=1, max_size=3))
            for number, each in enumerate(body):
                if column < len(each):
                    each[column] = value[number % len(value)]
        elif how == "drop" and len(header) > 1:
            del header[column % len(header)]
            body = [each[:column] + each[column + 1 :] for each in body]
        elif how == "row" and body:
            body.append(list(body[row]))
        elif how == "head":
            header[column % len(header)] = draw(st.one_of(st.sampled_from(header), words))
        elif how == "extra" and body:
            for each in body if draw(st.booleans()) else [body[row]]:
                each.append(draw(cells))
        elif how == "short" and body:
            del body[row][column:]
    return header, body


@st.composite
def csv_file(draw: st.DrawFn, rows: list[dict[str, Any]]) -> bytes:
    """A CSV as tools write it, or nearly."""
    header, body = draw(table(rows))
    text = io.StringIO()
    style = draw(st.sampled_from((",",) * 20 + (";", "\t", "|")))
    ends = draw(st.sampled_from(("\n", "\n", "\r\n", "\r\n", "\r")))
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    writer = csv.writer(text, delimiter=style, lineterminator=ends, quoting=quoting)
    writer.writerows([header, *body])
    encoding = draw(
        st.sampled_from(("utf-8",) * 12 + ("utf-8-sig", "utf-8-sig", "utf-16", "latin-1"))
    )
    data = text.getvalue().encode(encoding, "replace")
    return draw(changed_bytes(data)) if draw(st.integers(0, 3)) == 0 else data


def _put(file: Path, data: bytes | str) -> None:
    """A file, or what stands in its place: a folder, a link to nowhere, nothing."""
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    if isinstance(data, bytes):
        file.write_bytes(data)
    elif data == "folder":
        file.mkdir()
    elif data == "link":
        file.symlink_to("/nowhere/at/all")


def or_no_file(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes | str]:
    """Seldom something that is no file."""
    rare = st.sampled_from(("folder", "link", "nothing"))
    return st.integers(0, 40).flatmap(lambda n: rare if n == 0 else data)


def _csv(place: Place, given: Any) -> Any:
    _put(place.folder / "metadata.csv", given[0])
    return _list(place, given[1])


def _parquet(place: Place, given: Any) -> Any:
    _put(place.folder / "metadata.parquet", given[0])
    return _list(place, given[1])


TYPES = (
    lambda v: pa.array([str(x) for x in v]),
    lambda v: pa.array([str(x) for x in v], pa.large_string()),
    lambda v: pa.array([str(x) for x in v]).dictionary_encode(),
    lambda v: pa.array([str(x).encode("utf-8", "replace") for x in v]),
    lambda v: pa.array(range(len(v)), pa.int64()),
    lambda v: pa.array([n % 2 for n in range(len(v))], pa.int8()),
    lambda v: pa.array([n % 2 == 0 for n in range(len(v))]),
    lambda v: pa.array([n % 2 + 0.5 for n in range(len(v))]),
    lambda v: pa.array([float("nan")] * len(v)),
    lambda v: pa.array([None] * len(v), pa.string()),
    lambda v: pa.nulls(len(v)),
    lambda v: pa.array([[str(x)] for x in v]),
    lambda v: pa.array([{"name": str(x)} for x in v]),
    lambda v: pa.array([[("a", 1)] for _ in v], pa.map_(pa.string(), pa.int64())),
    lambda v: pa.array([n % 2 for n in range(len(v))], pa.timestamp("ns")),
    lambda v: pa.array([n % 2 for n in range(len(v))], pa.date32()),
    lambda v: pa.array([n % 2 for n in range(len(v))], pa.duration("s")),
    lambda v: pa.array([Decimal(n % 2) for n in range(len(v))]),
    lambda v: pa.array([n % 2 for n in range(len(v))], pa.uint64()),
)


@st.composite
def parquet_file(draw: st.DrawFn) -> bytes:
    """A Parquet table: other types, missing and doubled columns, cut or changed bytes."""
    header, body = draw(table(ROWS))
    wide = [[*row, *([None] * len(header))][: len(header)] for row in body]
    arrays = []
    for column in range(len(header)):
        values = [row[column] for row in wide]
        kind = draw(st.integers(-60, len(TYPES) - 1))
        safe = [x if x is None else str(x).encode("utf-8", "replace").decode() for x in values]
        arrays.append(pa.array(safe, pa.string()) if kind < 0 else TYPES[kind](safe))
    names = [name.encode("utf-8", "replace").decode() for name in header]
    made, buffer = pa.Table.from_arrays(arrays, names=names), io.BytesIO()
    if draw(st.integers(0, 9)) == 0:
        made = made.replace_schema_metadata(
            {"pandas": draw(st.sampled_from(("", "{", "[]", "{}")))}
        )
    pq.write_table(made, buffer, compression=draw(st.sampled_from(("snappy", "zstd", "none"))))
    data = buffer.getvalue()
    return draw(changed_bytes(data)) if draw(st.integers(0, 3)) == 0 else data


BIRDS = [
    {"img_id": n + 1, "img_filename": name, "y": n % 2, "split": n // 4 % 3, "place": n // 2 % 2}
    for n, name in enumerate(NAMES)
]

FACES = [f"{number:06d}.jpg" for number in range(1, 49)]
TRAITS = ["Blond_Hair", "Male", "Smiling", "Young"]
ATTRIBUTES = [
    "48",
    " ".join(TRAITS),
    *(
        f"{name} {' '.join('1' if (n >> bit) & 1 else '-1' for bit in range(4))}"
        for n, name in enumerate(FACES)
    ),
]
PARTITION = [f"{name} {n // 4 % 3}" for n, name in enumerate(FACES)]


@st.composite
def changed_lines(draw: st.DrawFn, lines: list[str]) -> bytes:
    """A text file of lines, some of them changed."""
    lines = list(lines)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(("drop", "double", "word", "put", "cell", "swap", "head")))
        parts = lines[at].split()
        if how == "drop" and len(lines) > 1:
            del lines[at]
        elif how == "double":
            lines.insert(at, lines[at])
        elif how == "word":
            lines[at] += " " + draw(words)
        elif how == "put":
            lines.insert(at, draw(words))
        elif how == "cell" and parts:
            parts[draw(st.integers(0, len(parts) - 1))] = draw(st.one_of(cells, scalars.map(str)))
            lines[at] = " ".join(parts)
        elif how == "swap":
            lines[at], lines[-1] = lines[-1], lines[at]
        elif how == "head" and len(lines) > 1:
            lines[draw(st.integers(0, 1))] = draw(
                st.sampled_from(("49", "0", "-1", "", "Male Male Young Blond_Hair", "Male", "1 2"))
            )
    ends = draw(st.sampled_from(("\n", "\n", "\n", "\r\n")))
    data = ends.join([*lines, ""]).encode("utf-8", "surrogatepass")
    return draw(changed_bytes(data)) if draw(st.integers(0, 4)) == 0 else data


def _start_celeba(folder: Path) -> Place:
    _pictures(folder / "data" / "img_align_celeba", FACES)
    return Place(folder / "data", "celeba")


def _celeba(place: Place, given: Any) -> Any:
    _put(place.folder / "list_attr_celeba.txt", given[0])
    _put(place.folder / "list_eval_partition.txt", given[1])
    return _list(place, given[2])


AGES = (1, 4, 5, 6, 20, 33, 50, 51, 99, 116, 0, 999, 1000)
PATTERNS = (
    "{}_{}_{}_{}.jpg", "{}_{}_{}_{}.jpg.chip.jpg", "{}_{}_{}_{} .jpg.chip.jpg",
    "{}_{}_{}_{}.pg.chip.jpg",
    "{}_{}_{}.jpg", "{}_{}_{}_{}.png", "{}_{}_{}_{}.JPG", "sub/{}_{}_{}_{}.jpg",
    "{}__{}_{}_{}.jpg", "-{}_{}_{}_{}.jpg",
)  # fmt: skip


@st.composite
def face_names(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Names of files, and what lies there."""
    whole = [(f"{age}_{sex}_0_{n}.jpg", "file")
             for age in (3, 30) for sex in (0, 1) for n in range(15)]  # fmt: skip
    found = whole if draw(st.integers(0, 3)) else whole[:: draw(st.integers(2, 60))]
    for _ in range(draw(st.integers(0, 5))):
        pattern = draw(st.sampled_from((*PATTERNS[:2], *PATTERNS)))
        name = pattern.format(
            draw(st.sampled_from(AGES)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 5)),
            draw(st.one_of(st.integers(0, 3), words)),
        )
        if draw(st.integers(0, 5)) == 0:
            name = draw(cells)
        kind = draw(st.sampled_from(("file",) * 12 + ("link", "folder", "fifo", "empty")))
        found = [*found, (name, kind)]
    return found


def _start_utkface(folder: Path) -> Place:
    (folder / "outside.png").write_bytes(PNG)
    return Place(folder / "data", "utkface")


def _utkface(place: Place, given: Any) -> Any:
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir()
    for name, kind in given[0]:
        parts = [part for part in name.replace("\0", "_").split("/") if part not in ("", ".", "..")]
        file = place.folder.joinpath(*parts)
        if not parts or any(len(os.fsencode(part)) > 255 for part in parts if _encodes(part)):
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _lay(file, kind, place.folder.parent / "outside.png")
        except (OSError, UnicodeEncodeError):
            continue  # no such file can be
    return _list(place, given[1])


def _encodes(part: str) -> bool:
    try:
        return bool(os.fsencode(part)) or True
    except UnicodeEncodeError:
        return False


def _lay(file: Path, kind: str, outside: Path) -> None:
    if file.exists() or file.is_symlink():
        return
    if kind == "link":
        file.symlink_to(outside)
    elif kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.write_bytes(PNG if kind == "file" else b"")


pairs = st.fixed_dictionaries(
    {},
    optional={
        "label": st.one_of(st.sampled_from((*TRAITS, "gender", "race")), words),
        "attribute": st.one_of(st.sampled_from(("Young", "age", "race", "gender")), words),
        "severity": st.sampled_from((0.5, 0.9)),
    },
).filter(lambda given: given.get("label") is None or given["label"] != given.get("attribute"))
some_settings = st.one_of(st.just({}), settings)
some_pairs = st.one_of(st.just({}), pairs)
TARGETS = [
    Target("folder, metadata.csv", st.tuples(or_no_file(csv_file(ROWS)), some_settings),
           _start("folder"), _csv, _use, 2),
    Target("folder, metadata.parquet", st.tuples(or_no_file(parquet_file()), some_settings),
           _start("folder"), _parquet, _use),
    Target("waterbirds", st.tuples(or_no_file(csv_file(BIRDS)), st.just({})),
           _start("waterbirds"), _csv, _use),
    Target("celeba", st.tuples(or_no_file(changed_lines(ATTRIBUTES)),
    or_no_file(changed_lines(PARTITION)),
                               some_pairs), _start_celeba, _celeba, _use),
    Target("utkface", st.tuples(face_names(), some_pairs), _start_utkface, _utkface, _use),
]  # fmt: skip
