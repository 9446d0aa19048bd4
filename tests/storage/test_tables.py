"""The tables are readable without raysynth: pyarrow, pandas, Hugging Face's Image feature."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from fsspec.implementations.local import LocalFileOpener

from raysynth.groups.groups import Groups
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.tables import (
    IMAGE,
    REAL,
    decode_images,
    encode_png,
    groups_of,
    parquet_files,
    read_parts,
    read_table,
    with_groups,
    write_table,
)
from raysynth.training.data import load_real

GROUPS = Groups(("a", "b", "c"), ("x", "y"), ("an a", "a b", "a c"), ("x", "y"))


def rows(sizes: list[int]) -> pa.Table:
    pixels = [np.full((s, s, 3), 7 * i % 256, np.uint8) for i, s in enumerate(sizes)]
    count = len(sizes)
    columns = {
        "id": [f"r{i}" for i in range(count)],
        "image": [{"bytes": encode_png(p), "path": None} for p in pixels],
        "label": [0] * count,
        "attribute": [1] * count,
        "group": [1] * count,
        "split": ["train"] * count,
    }
    return pa.table(columns, schema=with_groups(REAL, GROUPS))


def test_names_and_pixels_survive_the_file(tmp_path):
    write_table(rows([4, 4, 4]), str(tmp_path / "sub/one.parquet"))
    table = read_table(str(tmp_path))
    assert groups_of(table.schema) == GROUPS
    assert decode_images(table["image"])[:, 0, 0, 0].tolist() == [0, 7, 14]
    assert len(parquet_files(str(tmp_path))) == 1


def test_pyarrow_and_hugging_face_read_it_as_it_is(tmp_path):
    write_table(rows([4]), str(tmp_path / "one.parquet"))
    outside = pyarrow.dataset.dataset(tmp_path).to_table()
    assert outside["image"][0].as_py()["bytes"][:4] == b"\x89PNG"
    features = json.loads(outside.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["a", "b", "c"], "_type": "ClassLabel"}
    assert features["attribute"] == {"names": ["x", "y"], "_type": "ClassLabel"}
    assert features["group"]["names"][:3] == ["a/x", "a/y", "b/x"]
    # `datasets` keeps the names of columns that have the type it gives them, int64, and no others.
    named = ("label", "attribute", "group")
    assert {outside.schema.field(name).type for name in named} == {pa.int64()}
    scores = json.loads(with_groups(SYNTHETIC, GROUPS).metadata[b"huggingface"])["info"]["features"]
    assert scores["clip_score"] == {"dtype": "float32", "_type": "Value"}


def test_rows_are_read_without_the_images_between_them(tmp_path, monkeypatch):
    monkeypatch.setattr("raysynth.storage.tables.ROW_GROUP_BYTES", 1 << 20)
    noise = np.random.default_rng(0).integers(0, 256, (40, 256, 256, 3), np.uint8)
    table = rows([4] * 40)
    images = pa.array([{"bytes": encode_png(p), "path": None} for p in noise], IMAGE)
    path = tmp_path / "train-00000.parquet"
    write_table(table.set_column(1, "image", images), str(path))
    sizes: list[int] = []
    read = LocalFileOpener.read

    def counted(self, length=-1):
        data = read(self, length)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(LocalFileOpener, "read", counted)
    parts = list(read_parts(str(tmp_path), ["id", "image"], ids=pa.array(["r30", "r7", "no"])))
    assert [part["id"].to_pylist() for part in parts] == [["r7"], ["r30"]]
    assert (decode_images(parts[1]["image"])[0] == noise[30]).all()
    # Two row groups of some five images each, the ids and the footer, out of forty images.
    assert sum(sizes) < path.stat().st_size / 3


def test_images_of_several_sizes_need_a_size():
    table = rows([4, 6])
    with pytest.raises(ValueError, match="differ in size"):
        decode_images(table["image"])
    assert decode_images(table["image"], size=5).shape == (2, 5, 5, 3)


def test_a_size_takes_the_centre_square_and_squeezes_nothing():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    column = pa.array([{"bytes": encode_png(x), "path": None} for x in (wide, tall)])
    assert (decode_images(column, size=10)[:, 2:-2, 2:-2] == 200).all()


def test_tables_of_before_are_read_beside_those_of_now(tmp_path):
    """Labels were int32: a run that was cut off then goes on now."""
    now = rows([4, 4])
    narrow = pa.schema(
        [field.with_type(pa.int32()) if field.type == pa.int64() else field for field in now.schema]
    )
    write_table(now.cast(narrow.with_metadata(now.schema.metadata)), str(tmp_path / "a.parquet"))
    write_table(now, str(tmp_path / "b.parquet"))
    table = read_table(str(tmp_path))
    assert table["label"].to_pylist() == [0] * 4 and table["label"].type == pa.int64()
    assert groups_of(table.schema) == GROUPS
    for name in "ab":
        (tmp_path / f"{name}.parquet").rename(tmp_path / f"train-{name}.parquet")
    assert load_real(str(tmp_path), "train", None).label.tolist() == [0] * 4
