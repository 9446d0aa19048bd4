"""Differences of evidence bounds: zero between equal models, the same in any batch, and tables."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysynth.adapters.record import LoraShape
from raysynth.audit.attribution import asked_and_top, own_share, read_leaks, write_attribution
from raysynth.audit.differences import Compared, Judge, compare, read_pixels
from raysynth.errors import DataError
from raysynth.finetune.training import train_pack
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig
from raysynth.scoring.columns import SYNTHETIC
from raysynth.storage.tables import encode_png, read_table, write_table
from raysynth.synthesis.shards import ShardRecord, write_manifest
from tests.audit.conftest import lesson, quiet
from tests.finetune.conftest import GROUPS

MODELS = {"shared": {g: f"without-{g}" for g in (0, 2, 3)}}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    """Two images of each group, written in the other order than their names'."""
    folder, rng = tmp_path_factory.mktemp("synthetic"), np.random.default_rng(1)
    rows = []
    for g in range(GROUPS.count):
        for n in (1, 0):
            row = dict.fromkeys(SYNTHETIC.names)
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            row |= {"id": f"g{g}-{n}", "group": g, "adapter": "shared"}
            row |= {"image": {"bytes": encode_png(pixels), "path": None}}
            rows.append(row | {"prompt": spoken(PromptConfig(), GROUPS, g)})
    write_table(pa.Table.from_pylist(rows, SYNTHETIC), f"{folder}/all.parquet")
    write_manifest(str(folder), [ShardRecord("all.parquet", 0, len(rows), "")], {})
    return folder


def images_of(synthetic: Path) -> pa.Table:
    return read_table(str(synthetic), ["id", "group", "adapter", "prompt"]).sort_by("id")


def asked(full, without: Path, synthetic: Path, **more) -> Compared:
    settings = full.settings
    shape = LoraShape(settings.targets, settings.rank, settings.alpha)
    given = (full.base, full.training, shape, full.work, str(without), MODELS, GROUPS.count)
    return replace(Compared(*given, str(synthetic), timesteps=3, rows=5), **more)


def test_a_model_that_forgot_nothing_is_owed_nothing(full, synthetic, tmp_path):
    for name in MODELS["shared"].values():
        shutil.copytree(f"{full.work}/shared", tmp_path / name)
    images = images_of(synthetic)
    scores = Judge(asked(full, tmp_path, synthetic)).scores(
        images, read_pixels(str(synthetic), images["id"])
    )
    assert scores.shape == (8, 4) and np.isnan(scores[:, 1]).all(), "never trained on"
    assert (scores[:, [0, 2, 3]] == 0).all()


def test_scores_are_an_images_own_and_written_once(full, synthetic, tmp_path):
    assert train_pack(lesson(full, tmp_path), quiet) == {}
    images, whole = images_of(synthetic), asked(full, tmp_path, synthetic)
    scores = Judge(whole).scores(images, read_pixels(str(synthetic), images["id"]))
    assert (scores[:, [0, 2, 3]] != 0).all()
    parts = {str(tmp_path / f"{n}.parquet"): images.slice(start, count)
             for n, start, count in ((0, 0, 3), (1, 3, 5))}  # fmt: skip
    compare(whole, parts, 1.0)
    found = read_table(str(tmp_path), files=list(parts))
    assert found["id"].equals(images["id"])
    again = np.array(found["scores"].to_pylist(), np.float32)
    np.testing.assert_allclose(again, scores, rtol=1e-3, atol=1e-3)
    compare(replace(whole, without="gone"), parts, 1.0)  # nothing is left to do


def test_the_table_says_who_is_owed(tmp_path):
    scores = np.array([[1.0, np.nan, 3.0, 2.0], [5.0, np.nan, -1.0, 0.0], [0.0, np.nan, 0.0, -1.0]])
    ids = pa.chunked_array([["a", "b", "c"]])
    write_attribution(ids, scores, str(tmp_path))
    written = read_table(str(tmp_path))
    assert written["scores"].to_pylist()[0] == [1.0, None, 3.0, 2.0]
    assert written["top"].to_pylist() == [2, 0, 0]
    asked = pa.table({"id": ["c", "a", "b"], "group": [0, 0, 3]})
    assert read_leaks(str(tmp_path), asked).tolist() == [False, True, True]
    with pytest.raises(DataError, match=r"nothing of 1 of 2 candidates.*Fix: audit\.images"):
        read_leaks(str(tmp_path), pa.table({"id": ["c", "d"], "group": [0, 0]}))
    table = asked_and_top(np.array([2, 0, 2]), np.array([2, 0, 0]), GROUPS)
    assert table == {
        "pullover/grass": {
            "pullover/grass": 1, "pullover/gravel": 0, "coat/grass": 0, "coat/gravel": 0},
        "coat/grass": {
            "pullover/grass": 1, "pullover/gravel": 0, "coat/grass": 1, "coat/gravel": 0},
    }  # fmt: skip
    assert own_share(table) == pytest.approx(2 / 3, abs=1e-4)
