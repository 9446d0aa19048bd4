"""A folder of labels alone goes the whole way, and nothing is claimed of its true groups."""

from __future__ import annotations

import csv
import json

import pyarrow.compute as pc
import pytest

import raysynth
from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset
from raysynth.evaluation.results import INFERRED
from raysynth.pipeline import run_pipeline
from raysynth.storage.tables import read_table
from tests.test_pipeline import MINIATURE


def write_labels_alone(folder, config):
    """outfits as a folder: file_name, label, split; the names say nothing of the ground."""
    data, groups, listing = list_dataset(config.dataset, config.seed)
    rows = []
    for number, (row, png) in enumerate(
        zip(listing.to_pylist(), data.images(listing), strict=True)
    ):
        name = f"{number:05d}.png"
        (folder / name).write_bytes(png)
        rows.append((name, groups.label_names[row["label"]], row["split"]))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "split"), *rows])
    return {name: listing["attribute"][n].as_py() for n, (name, _, _) in enumerate(rows)}


@pytest.mark.slow
def test_labels_alone_go_the_whole_way(tmp_path):
    sizes = [given for given in MINIATURE if given.startswith("dataset.")]
    folder = tmp_path / "data"
    folder.mkdir()
    own = ["dataset.train_images=400", "dataset.severity=0.9"]
    truth = write_labels_alone(folder, load_config(None, [*sizes, *own]))
    given = [one for one in MINIATURE if not one.startswith("dataset.")]
    config = load_config(
        None,
        [
            f"storage_path={tmp_path / 'runs'}",
            *given,
            "dataset.name=folder",
            f"dataset.path={folder}",
            "dataset.attributes=unknown",
            "grouping.method={name: conflict_mining, steps: 60, most: 0.4}",
            "classifier.widths=[8, 16]",
        ],
    )
    run = run_pipeline(config)
    results = json.loads((tmp_path / "runs/mini/report/results.json").read_text())
    assert results["inferred"] == INFERRED and "measured_groups" not in results
    assert sorted(results["groups"]) == [
        "coat/grass",
        "coat/gravel",
        "pullover/grass",
        "pullover/gravel",
    ]
    assert "own" not in results["found"] and results["found"]["aligned"]["pullover"] == "grass"
    page = (tmp_path / "runs/mini/report/index.html").read_text()
    assert "accuracy of the worst inferred group" in page.lower() and "unknown/" not in page
    assert "Missed, falsely called" in page
    read = raysynth.load(str(tmp_path / "runs/mini"))
    assert list(read.groups.index) == list(results["groups"]) and read.groups["test"].sum() == 40
    own = read.predictions.groupby(["method", "seed", "group"])["right"].mean().unstack()
    worst = 100 * own.min(axis=1).groupby("method").mean()
    assert worst["raysynth"] == pytest.approx(read.results.loc["raysynth", "wga"])
    card = (tmp_path / "runs/mini/classifier/model/README.md").read_text()
    assert "their groups were inferred" in card
    found = read_table(run.folder("grouping"), files=[f"{run.folder('grouping')}/groups.parquet"])
    found = found.filter(pc.equal(found["split"], "test"))
    words = results["groups"][0].split("/")[1], results["groups"][1].split("/")[1]
    right = [
        words[row["attribute"]] == ("grass", "gravel")[truth[row["id"]]]
        for row in found.to_pylist()
    ]
    assert sum(right) >= 0.9 * len(right) and len(right) == 40
