"""Parquet files with a column of images, as `datasets` writes them."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.errors import DataError

GROUPS = [(y, a) for y in (0, 1) for a in (0, 1)]
FEATURES = {
    "image": {"_type": "Image"},
    "species": {"names": ["landbird", "waterbird"], "_type": "ClassLabel"},
}


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_file(path, each: int, *, label="species", features=FEATURES, rows_per_group=7):
    rows = [(y, a, n) for y, a in GROUPS for n in range(each)]
    columns = {
        "image": pa.array([{"bytes": png(number), "path": None} for number in range(len(rows))]),
        label: pa.array([y for y, _, _ in rows], pa.int64()),
        "place": pa.array(["land" if a == 0 else "water" for _, a, _ in rows]),
    }
    table = pa.table(columns)
    if features:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)


def config_for(folder, *overrides):
    columns = ["dataset.label=species", "dataset.attribute=place"]
    return load_config(None, ["dataset.name=hub", f"dataset.path={folder}", *columns, *overrides])


def test_names_are_the_features_and_images_come_from_their_row_groups(tmp_path):
    write_file(tmp_path / "data/train-00000-of-00001.parquet", 10)
    write_file(tmp_path / "data/test-00000-of-00001.parquet", 4)
    dataset, groups, listing = list_dataset(config_for(tmp_path).dataset, 0)
    assert groups.label_names == ("landbird", "waterbird")
    assert groups.attribute_names == ("land", "water")
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [8] * 4 and counts["validation"].tolist() == [2] * 4
    assert counts["test"].tolist() == [4] * 4
    some = listing.take([40, 3, 25, 12])
    for row, data in zip(some.to_pylist(), dataset.images(some), strict=True):
        number = int(row["id"].rpartition("#")[2])
        assert np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0] == number


def test_without_features_names_are_what_is_written_and_without_splits_groups_are_divided(tmp_path):
    write_file(tmp_path / "all.parquet", 12, features=None)
    _, groups, listing = list_dataset(config_for(tmp_path).dataset, 0)
    assert groups.label_names == ("0", "1")
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [8] * 4 and counts["test"].tolist() == [2] * 4


def test_what_cannot_be_read_is_refused_with_the_columns_there_are(tmp_path):
    with pytest.raises(DataError, match="no Parquet file"):
        list_dataset(config_for(tmp_path).dataset, 0)
    write_file(tmp_path / "data/train.parquet", 12)
    with pytest.raises(DataError, match=r"no column label; got image, species, place.*=<a column>"):
        list_dataset(config_for(tmp_path, "dataset.label=null").dataset, 0)
    write_file(tmp_path / "other/train.parquet", 12)
    with pytest.raises(DataError, match=r"holds several data sets \(data, other\)"):
        list_dataset(config_for(tmp_path).dataset, 0)
    pq.write_table(pa.table({"species": [1], "place": ["x"]}), tmp_path / "none.parquet")
    (tmp_path / "other/train.parquet").unlink()
    (tmp_path / "data/train.parquet").unlink()
    with pytest.raises(DataError, match="no column of images"):
        list_dataset(config_for(tmp_path).dataset, 0)


def test_broken_bytes_are_unreadable_and_the_others_read(tmp_path):
    write_file(tmp_path / "all.parquet", 12)
    table = pq.read_table(tmp_path / "all.parquet")
    images = table["image"].to_pylist()
    images[0]["bytes"], images[1]["bytes"] = b"none", None
    table = table.set_column(0, "image", pa.array(images))
    pq.write_table(table, tmp_path / "all.parquet")
    dataset, _, listing = list_dataset(config_for(tmp_path).dataset, 0)
    read = dataset.images(listing.slice(0, 3))
    assert [isinstance(each, bytes) for each in read] == [False, False, True]


def test_a_hub_that_does_not_answer_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    config = config_for("hf://datasets/nobody/nothing")
    with pytest.raises(
        DataError, match=r"hf://datasets/nobody/nothing .*the hub does not answer|cannot be read"
    ):
        list_dataset(config.dataset, 0)
