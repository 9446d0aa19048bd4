"""The tables are readable without raysynth: pyarrow, pandas, Hugging Face's Image feature."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from raysynth.groups import Groups
from raysynth.tables import (
    REAL,
    SYNTHETIC,
    decode_images,
    encode_png,
    groups_of,
    parquet_files,
    read_table,
    with_groups,
    write_table,
)

GROUPS = Groups(("a", "b", "c"), ("x", "y"), ("an a", "a b", "a c"), ("x", "y"))


def rows(sizes: list[int]) -> pa.Table:
    pixels = [np.full((s, s, 3), 7 * i, np.uint8) for i, s in enumerate(sizes)]
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
    scores = json.loads(with_groups(SYNTHETIC, GROUPS).metadata[b"huggingface"])["info"]["features"]
    assert scores["clip_score"] == {"dtype": "float32", "_type": "Value"}


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
