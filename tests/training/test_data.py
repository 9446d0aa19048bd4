"""Loading the tables, and balanced draws."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from raysynth.errors import DataError
from raysynth.groups.balance import draw_balanced
from raysynth.progress import Progress
from raysynth.storage.tables import read_table, write_table
from raysynth.training.data import load_real, load_synthetic, say_shortage
from tests.training.tiny import SIDE, tiny_data, tiny_groups, tiny_images, write_tiny_run


def test_real_images_come_back_as_written(tmp_path):
    folders = write_tiny_run(str(tmp_path))
    train = load_real(folders["real"], "train", None)
    expected = tiny_data().train
    np.testing.assert_array_equal(train.pixels, expected.pixels)
    np.testing.assert_array_equal(train.group, expected.group)
    assert train.ids.tolist() == expected.ids.tolist()
    assert train.pixels.dtype == np.uint8 and train.pixels.shape == (56, 3, SIDE, SIDE)


def test_resizing(tmp_path):
    folders = write_tiny_run(str(tmp_path))
    assert load_real(folders["real"], "validation", 20).pixels.shape == (24, 3, 20, 20)


def test_missing_split_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no test-\*\.parquet"):
        load_real(str(tmp_path), "test", None)


def test_only_kept_images_of_listed_shards(tmp_path):
    folders = write_tiny_run(str(tmp_path))
    made = load_synthetic(folders["synthetic"], folders["selection"], SIDE)
    assert made.counts(4).tolist() == [8, 8, 8, 8]
    assert len(set(made.ids.tolist())) == len(made)
    manifest = json.loads((tmp_path / "synthetic" / ".manifest.json").read_text())
    manifest["rows"] -= manifest["shards"].pop()["rows"]
    (tmp_path / "synthetic" / ".manifest.json").write_text(json.dumps(manifest))
    made = load_synthetic(folders["synthetic"], folders["selection"], SIDE)
    assert made.counts(4).tolist() == [8, 8, 8, 0]


def test_lost_rows_and_broken_selections_are_refused(tmp_path):
    folders = write_tiny_run(str(tmp_path))
    selection = read_table(folders["selection"])
    (file,) = (tmp_path / "selection").glob("*.parquet")
    kept = selection["kept"].to_pylist()
    write_table(selection.set_column(selection.schema.get_field_index("kept"), "kept",
                pa.array([None, *kept[1:]])), str(file))  # fmt: skip
    with pytest.raises(DataError, match=r"empty cells in the selection.*Fix"):
        load_synthetic(folders["synthetic"], folders["selection"], SIDE)
    write_table(selection, str(file))
    shard = sorted((tmp_path / "synthetic").glob("*.parquet"))[0]
    rows = read_table(folders["synthetic"], files=[str(shard)])
    write_table(rows.slice(0, 3), str(shard))
    with pytest.raises(DataError, match=r"3 rows, expected 10.*Fix"):
        load_synthetic(folders["synthetic"], folders["selection"], SIDE)


@pytest.mark.parametrize("groups", [4, 6])
def test_draw_is_balanced_seeded_and_nested(groups):
    group = np.repeat(np.arange(groups), [20 + 5 * g for g in range(groups)])
    small = draw_balanced(group, groups * 5, groups, seed=1)
    large = draw_balanced(group, groups * 10, groups, seed=1)
    assert np.bincount(group[small]).tolist() == [5] * groups
    assert np.bincount(group[large]).tolist() == [10] * groups
    assert set(small) <= set(large)
    np.testing.assert_array_equal(small, draw_balanced(group, groups * 5, groups, seed=1))
    assert set(small) != set(draw_balanced(group, groups * 5, groups, seed=2))


def test_draw_asking_for_more_takes_all_that_stays_balanced():
    group = np.repeat(np.arange(4), [9, 7, 8, 12])
    rows = draw_balanced(group, 1000, 4, seed=0)
    assert np.bincount(group[rows]).tolist() == [7] * 4


def test_draw_needs_every_group():
    with pytest.raises(DataError, match=r"group\(s\) \[1\] have none"):
        draw_balanced(np.array([0, 0, 2, 3]), 4, 4, seed=0)


def test_shortage_is_said(capsys):
    data = tiny_data()
    say_shortage(0.5, data, Progress())
    assert capsys.readouterr().err == ""
    say_shortage(2.0, data, Progress())
    assert "asks for 112 images; 40 group-balanced ones" in capsys.readouterr().err


def test_images_share_memory_across_workers(ray_local):
    reference = ray_local.put(tiny_images([4] * 4, tiny_groups(), 0))

    @ray_local.remote
    def flags(images):
        return images.pixels.flags.owndata, images.pixels.flags.writeable

    assert ray_local.get(flags.remote(reference)) == (False, False)
