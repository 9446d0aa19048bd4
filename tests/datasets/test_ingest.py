"""Ingest with a real Ray: the real table, skipping and refusing broken images, resuming."""

from __future__ import annotations

import io
import os
import shutil

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from raysynth.config.files import load_config
from raysynth.datasets.ingest import ingest
from raysynth.datasets.listing import list_dataset
from raysynth.datasets.pictures import FORMATS
from raysynth.errors import DataError
from raysynth.progress import Progress
from raysynth.storage.tables import REAL, decode_images, groups_of, read_table
from tests.datasets.test_folder import balanced_rows, config_for, write_folder


def test_outfits_becomes_the_real_table(ray_local, tmp_path):
    sizes = ["train_images=40", "validation_images=8", "test_images=8"]
    config = load_config(None, ["dataset.severity=0.9", *(f"dataset.{s}" for s in sizes)])
    facts = ingest(config.dataset, 0, str(tmp_path), Progress())
    table = read_table(str(tmp_path))
    assert facts["rows"] == len(table) == 56
    assert facts["counts"]["train"] == [18, 2, 2, 18]
    assert facts["sides"] == [32, 32]
    assert table.schema.names == REAL.names
    assert groups_of(table.schema).label_names == ("pullover", "coat")
    assert decode_images(table["image"]).shape == (56, 32, 32, 3)
    assert len(set(table["id"].to_pylist())) == 56


def test_broken_images_are_refused_or_skipped_and_counted(ray_local, tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    (folder / "images/dog-day-3.png").write_bytes(b"not an image")
    work = str(tmp_path / "work")
    with pytest.raises(
        DataError,
        match=r"1 image\(s\) .*images/dog-day-3.png: none of the formats.*on_error=skip",
    ):
        ingest(config_for(folder).dataset, 0, work, Progress())
    said = io.StringIO()
    skip = config_for(folder, "dataset.on_error=skip")
    facts = ingest(skip.dataset, 0, work, Progress(Console(file=said, width=500)))
    assert facts["skipped"] == ["images/dog-day-3.png"]
    reason = f"none of the formats that are read ({', '.join(FORMATS)})"
    assert facts["left_out"] == (
        f"left out: 1 image(s) that cannot be read (images/dog-day-3.png: {reason})"
    )
    assert facts["left_out"] in said.getvalue()
    # All files are there: nothing is read by workers.
    train = f"{work}/train-00000.parquet"
    kept = os.stat(train).st_mtime_ns
    again = ingest(skip.dataset, 0, work, Progress())
    assert os.stat(train).st_mtime_ns == kept
    assert again["left_out"] == facts["left_out"] and again["repeated"] == facts["repeated"] == ""
    assert facts["rows"] == 79 == len(read_table(work))


def test_a_cut_off_ingest_makes_only_what_is_missing(ray_local, tmp_path):
    config = config_for(write_folder(tmp_path / "data", balanced_rows()))
    work = tmp_path / "work"
    ingest(config.dataset, 0, str(work), Progress())
    kept = os.stat(work / "train-00000.parquet").st_mtime_ns
    before = read_table(str(work))
    (work / "test-00000.parquet").unlink()
    ingest(config.dataset, 0, str(work), Progress())
    assert os.stat(work / "train-00000.parquet").st_mtime_ns == kept
    assert read_table(str(work)).equals(before)


def test_a_file_that_was_replaced_by_one_of_fewer_rows_is_made_again(ray_local, tmp_path):
    """Its missing rows are no unreadable images."""
    config = config_for(write_folder(tmp_path / "data", balanced_rows()))
    work = tmp_path / "work"
    facts = ingest(config.dataset, 0, str(work), Progress())
    before = read_table(str(work))
    train, test = work / "train-00000.parquet", work / "test-00000.parquet"
    pq.write_table(pq.read_table(train).slice(1), train)
    test.write_bytes(test.read_bytes()[:100])
    again = ingest(config.dataset, 0, str(work), Progress())
    assert again["skipped"] == [] and again["left_out"] == ""
    assert read_table(str(work)).equals(before) and again["counts"] == facts["counts"]


def test_a_picture_in_two_splits_or_with_two_labels_is_said(ray_local, tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    listing = list_dataset(config_for(folder).dataset, 0)[2].to_pylist()
    of = {
        split: [row["id"] for row in listing if (row["split"], row["group"]) == (split, 0)]
        for split in ("train", "validation", "test")
    }
    other = next(row["id"] for row in listing if (row["split"], row["label"]) == ("train", 1))
    for name in (of["validation"][0], of["test"][0], of["test"][1]):
        shutil.copy(folder / of["train"][0], folder / name)
    shutil.copy(folder / of["train"][1], folder / other)
    work, said = tmp_path / "work", io.StringIO()
    facts = ingest(
        config_for(folder).dataset, 0, str(work), Progress(Console(file=said, width=500))
    )
    for sentence in (
        f"2 test image(s) are training images too ({of['test'][0]}, {of['test'][1]})",
        f"1 validation image(s) are training images too ({of['validation'][0]})",
        f"2 image(s) are there with different labels ({of['train'][1]}, {other})",
    ):
        assert sentence in facts["repeated"] and sentence in said.getvalue()
    (work / "test-00000.parquet").unlink()
    assert (
        ingest(config_for(folder).dataset, 0, str(work), Progress())["repeated"]
        == facts["repeated"]
    )
