"""A run in found groups, read after it: each image in the groups of its split, wherever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import raysynth
from raysynth.config.files import load_config
from raysynth.finished import read_made
from raysynth.progress import Progress
from raysynth.publish.images import export_images
from tests.publish.made import MadeRun, make_run

PARITY = """
    from raysynth.grouping.method import Grouped, Method, attributes

    def group(images, knobs):
        ids = [each for part in images.parts("id") for each in part["id"].to_pylist()]
        names = ("even", "odd")
        return Grouped(names, names, attributes(ids, [int(i[-1]) % 2 for i in ids]))

    PART = Method("Parity", "a test", group)
"""


@pytest.fixture
def made(tmp_path, add_part) -> MadeRun:
    add_part("raysynth.grouping.methods", "parity", PARITY)
    return make_run(tmp_path / "runs", "grouping.method=parity")


def test_python_reads_every_image_in_the_groups_of_its_split(made):
    run = raysynth.load(made.config.root)
    table = run.groups
    found = ["a/even", "a/odd", "b/ä c/even", "b/ä c/odd"]
    assert set(table.index) == {*found, *made.groups.names}
    assert table.loc[found, "train"].tolist() == [14, 14, 14, 14]
    assert table.loc[made.groups.names, "test"].tolist() == [8] * 4
    assert np.isnan(table.loc[found, "test"]).all()
    assert table.loc[found, "kept"].tolist() == [8] * 4
    real = run.real
    assert set(real["attribute"][real["split"] != "test"]) == {"even", "odd"}
    assert set(real["attribute"][real["split"] == "test"]) == {"1", "2"}
    train = real[real["split"] == "train"]
    assert [int(i[-1]) % 2 for i in train["id"]] == (train["attribute"] == "odd").tolist()


def test_an_export_names_the_found_groups_and_none_where_there_is_none(made, tmp_path):
    given = load_config(None, [f"storage_path={Path(made.config.root).parent}", "name=tiny"])
    assert read_made(given, "selection", ("ingest",)).groups.attribute_names == ("even", "odd")
    export_images(given, str(tmp_path / "out"), Progress(), "real", "imagefolder")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| a/even | 14 |" in card and "in none of these groups" in card
    for split, expected in (("train", {"even", "odd"}), ("test", {None})):
        index = pq.read_table(tmp_path / "out" / split / "metadata.parquet")
        assert set(index["attribute"].to_pylist()) == expected
