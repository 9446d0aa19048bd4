"""Whole runs whose images do not show their label: they stop, and go on as they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raysynth.config.files import load_config
from raysynth.errors import UnfaithfulError
from raysynth.pipeline import open_run, run_pipeline
from raysynth.planning.preflight import check_configuration, strange_lenders
from raysynth.storage.files import read_json
from tests.test_pipeline import MINIATURE

SWAPPED = [
    *MINIATURE,
    "generator=vanilla",
    "dataset.pair=[trousers, bag]",
    "dataset.label_words={trousers: bag, bag: trousers}",
    "synthesis.steps=6",
    "selection.copy_threshold=null",
    "classifier.mixtures=[usb]",
    "classifier.seeds=1",
    "references.names=[erm]",
    "references.controls=[]",
    "references.seeds=1",
    "resources.workers=1",
    "clustering.actors=1",
    "synthesis.actors=1",
]
"""The prompts of trousers ask for bags, and those of bags for trousers."""


@pytest.mark.slow
def test_a_run_stops_before_training_and_goes_on_as_it_is_told(ray_local, tmp_path):
    def config(*more: str):
        return load_config(None, [f"storage_path={tmp_path}", *SWAPPED, *more])

    with pytest.raises(UnfaithfulError, match="4 group") as error:
        run_pipeline(config())
    stages = open_run(config()).manifest()["stages"]
    assert list(stages)[-1] == "fidelity", "neither references nor the search were made"
    sheet = str(error.value).partition("Pictures: ")[2].partition(",")[0]
    assert Image.open(sheet).height > 8 * 32

    real_only = run_pipeline(config("selection.on_unfaithful=real_only"))
    after = real_only.manifest()["stages"]
    assert {name: after[name] for name in stages} == stages, "nothing is made again"
    trials = pd.read_parquet(real_only.path("search/trials.parquet"))
    assert set(trials["ratio"]) == {0.0}
    results = read_json(real_only.path("report/results.json"))
    assert set(results["methods"]) == {"erm", "raysynth"}, "no mixture"
    assert results["methods"]["raysynth"]["chosen"]["images"] == "real"
    assert results["unfaithful"].startswith("no synthetic image was used")

    went_on = run_pipeline(config("selection.on_unfaithful=go_on")).manifest()["stages"]
    kept = {*stages, "references"}
    assert {name: went_on[name] for name in kept} == {name: after[name] for name in kept}
    assert went_on["search"]["digest"] != after["search"]["digest"]


SIZES = {  # train, validation, test
    ("zero", "stripes"): (95, 15, 15),
    ("zero", "checks"): (5, 15, 15),
    ("one", "stripes"): (25, 15, 15),
    ("one", "checks"): (95, 15, 15),
}


def write_digits(folder: Path) -> None:
    """scikit-learn's digits 0 and 1, bright on stripes or on checks: no garment, no ground."""
    digits, rng = load_digits(), np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    left = {
        name: list(np.flatnonzero(digits.target == y)) for y, name in enumerate(("zero", "one"))
    }
    rows = []
    for (label, ground), counts in SIZES.items():
        for split, count in zip(("train", "validation", "test"), counts, strict=True):
            for _ in range(count):
                index = left[label].pop()
                name = f"images/{label}-{ground}-{index}.png"
                Image.fromarray(_digit(digits.images[index], ground, rng)).save(folder / name)
                rows.append((name, label, ground, split))
    columns = ["file_name", "label", "attribute", "split"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metadata.csv", index=False)


def _digit(pixels: np.ndarray, ground: str, rng: np.random.Generator) -> np.ndarray:
    """[32, 32, 3]; the texture's place and both colours vary."""
    y, x = np.mgrid[:32, :32] + rng.integers(0, 8, (2, 1, 1))
    lines = y // 4 % 2 if ground == "stripes" else (y // 4 + x // 4) % 2
    back = (40 + 60 * lines)[..., None] * rng.uniform(0.6, 1.2, 3)
    shape = np.kron(pixels / 16, np.ones((4, 4)))[..., None]
    return (back * (1 - shape) + 245 * shape).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_group_of_five_of_a_foreign_domain_is_stopped_at(ray_local, tmp_path):
    write_digits(tmp_path / "data")
    config = load_config(
        None,
        [
            f"storage_path={tmp_path}",
            "name=digits",
            "dataset.name=folder",
            f"dataset.path={tmp_path / 'data'}",
            "finetune.steps=60",
            "synthesis.images_per_group=40",
            "resources.workers=1",
            "clustering.actors=1",
            "synthesis.actors=1",
        ],
    )
    groups, listing = check_configuration(config)
    train = np.asarray(listing["split"].to_pylist()) == "train"
    counts = np.bincount(listing["group"].to_numpy()[train], minlength=groups.count)
    (said,) = strange_lenders(config, groups, counts)
    assert said.startswith("zero/checks (5 training image(s), ") and "by that of one/checks" in said
    with pytest.raises(UnfaithfulError, match=r"zero/checks: \d+ % of"):
        run_pipeline(config)
