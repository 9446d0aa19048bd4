"""A miniature run of images with captions, to its images: everything says what it was told."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from raysynth.config.files import load_config
from raysynth.pipeline import run_pipeline
from raysynth.storage.tables import read_table
from raysynth.synthesis.shards import read_shards
from tests.datasets.trees import write_garments
from tests.test_pipeline import MINIATURE

LONG = "worn " * 60


@pytest.mark.slow
def test_captions_go_from_the_texts_to_the_images(tmp_path):
    sizes = [given for given in MINIATURE if given.startswith("dataset.")]
    folder = write_garments(tmp_path / "data", *sizes)
    for n, image in enumerate(sorted(folder.rglob("*.png"))):
        if n % 5:
            image.with_suffix(".txt").write_text(f"{LONG if n % 7 == 0 else ''}number {n}")
    given = [one for one in MINIATURE if not one.startswith("dataset.")]
    own = ["dataset.name=tree", f"dataset.path={folder}", "dataset.captions=txt"]
    few = [f"{key}=1" for key in ("resources.workers", "clustering.actors", "synthesis.actors")]
    config = load_config(None, [f"storage_path={tmp_path / 'runs'}", *given, *few, *own])
    run = run_pipeline(config, until="synthesis")
    real = read_table(run.folder("ingest"), ["id", "group", "split"])
    said = defaultdict(set)
    for row in real.to_pylist():
        text = (folder / row["id"]).with_suffix(".txt")
        if row["split"] == "train":
            said[row["group"]].add(text.read_text() if text.exists() else "")
    drawn = read_shards(run.folder("synthesis"), ["group", "prompt"]).to_pylist()
    assert len(drawn) == 64
    for row in drawn:
        prompt, _, caption = row["prompt"].partition(", ")
        assert prompt.startswith("a photo of a ") and caption in said[row["group"]]
    assert len({row["prompt"] for row in drawn}) > 32, "captions, each its own"
    manifest = json.loads((tmp_path / "runs/mini/manifest.json").read_text())
    facts = manifest["stages"]["ingest"]["facts"]
    assert 0 < facts["captions"] < 160
    again = run_pipeline(config, until="synthesis")
    assert read_shards(again.folder("synthesis"), ["prompt"])["prompt"].to_pylist() == [
        row["prompt"] for row in drawn
    ]
