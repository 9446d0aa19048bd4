"""Ingest with a real Ray: the real table, skipping and refusing broken images, resuming."""

from __future__ import annotations

import os

import pytest

from raysynth.config_files import load_config
from raysynth.datasets.ingest import ingest
from raysynth.errors import DataError
from raysynth.progress import Progress
from raysynth.tables import REAL, decode_images, groups_of, read_table
from tests.datasets.test_folder import balanced_rows, config_for, write_folder


def test_outfits_becomes_the_real_table(ray_local, tmp_path):
    sizes = ["train_images=40", "validation_images=8", "test_images=8"]
    config = load_config(None, ["dataset.severity=0.9", *(f"dataset.{s}" for s in sizes)])
    facts = ingest(config, str(tmp_path), Progress())
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
    with pytest.raises(DataError, match=r"1 image\(s\).*images/dog-day-3.png.*on_error=skip"):
        ingest(config_for(folder), work, Progress())
    facts = ingest(config_for(folder, "dataset.on_error=skip"), work, Progress())
    assert facts["skipped"] == ["images/dog-day-3.png"]
    assert facts["rows"] == 79 == len(read_table(work))


def test_a_cut_off_ingest_makes_only_what_is_missing(ray_local, tmp_path):
    config = config_for(write_folder(tmp_path / "data", balanced_rows()))
    work = tmp_path / "work"
    ingest(config, str(work), Progress())
    kept = os.stat(work / "train-00000.parquet").st_mtime_ns
    before = read_table(str(work))
    (work / "test-00000.parquet").unlink()
    ingest(config, str(work), Progress())
    assert os.stat(work / "train-00000.parquet").st_mtime_ns == kept
    assert read_table(str(work)).equals(before)
