"""outfits: who owns which garment and tile, group sizes, determinism, refusals."""

from __future__ import annotations

import io
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raysynth.datasets import garments
from raysynth.datasets.garments import CLASSES, PHOTOGRAPHS, RESERVED
from raysynth.datasets.outfits import LISTING_SCHEMA, Outfits
from raysynth.datasets.outfits_tiles import TILE, deal_tiles, load_photograph, tile_pixels

IDX = Path("/usr/share/datasets/fashion-mnist")
needs_idx = pytest.mark.skipif(not IDX.is_dir(), reason="needs Debian's dataset-fashion-mnist")

SMALL = Outfits(train_images=80, validation_images=8, test_images=16, severity=0.9)


def group_counts(rows: pa.Table, split: str) -> list[int]:
    """Images of groups (0,0), (0,1), (1,0), (1,1) in one split."""
    keys = zip(
        rows["split"].to_pylist(),
        rows["label"].to_pylist(),
        rows["attribute"].to_pylist(),
        strict=True,
    )
    counts = Counter(keys)
    return [counts[split, label, attribute] for label in (0, 1) for attribute in (0, 1)]


def test_reserve_has_the_promised_sizes() -> None:
    table = garments.load_cutouts()
    assert Counter(table["class"].to_pylist()) == RESERVED
    assert table.num_rows == 10_000
    assert len(set(table["sha256"].to_pylist())) == 10_000


@needs_idx
def test_base_and_outfits_share_no_garment_pixels() -> None:
    mnist = garments.load_fashion_mnist(str(IDX))
    digests = garments.pixel_digests(mnist.images)
    table = garments.load_cutouts()
    reserved = garments.reserved_indices(mnist.labels, digests)
    assert table["garment"].to_pylist() == reserved.tolist()
    assert table["sha256"].to_pylist() == [digests[i] for i in reserved]
    base = [digests[i] for i in garments.base_indices(mnist.labels, digests)]
    assert len(base) == 60_000
    assert not set(base) & set(table["sha256"].to_pylist())


@needs_idx
def test_shipped_cutouts_are_those_of_the_script() -> None:
    mnist = garments.load_fashion_mnist(str(IDX))
    for row in garments.load_cutouts().take(list(range(0, 10_000, 997))).to_pylist():
        assert mnist.labels[row["garment"]] == CLASSES.index(row["class"])
        assert row["png"] == garments.encode_png(garments.cut_out(mnist.images[row["garment"]]))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_tiles_are_dealt_once_and_interleaved(name: str) -> None:
    dealt = deal_tiles(name)
    assert {split: len(tiles) for split, tiles in dealt.items()} == {
        "base": 24,
        "train": 16,
        "validation": 12,
        "test": 12,
    }
    assert sorted(np.concatenate(list(dealt.values()))) == list(range(64))
    for tiles in dealt.values():
        quadrants = Counter((tile // 32, tile % 8 // 4) for tile in tiles.tolist())
        assert len(set(quadrants.values())) == 1 and len(quadrants) == 4


def test_tiles_cover_the_photograph_without_overlap() -> None:
    rows = [
        np.concatenate([tile_pixels("grass", 8 * r + c) for c in range(8)], 1) for r in range(8)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), load_photograph("grass"))


@pytest.mark.parametrize(
    ("severity", "minority"),
    [(0.5, 1000), (0.95, 100), (0.97, 60), (0.99, 20), (0.995, 10), (0.999, 2)],
)
def test_group_sizes_follow_the_severity(severity: float, minority: int) -> None:
    rows = Outfits(severity=severity).listing()
    majority = 2000 - minority
    assert group_counts(rows, "train") == [majority, minority, minority, majority]
    assert group_counts(rows, "validation") == [100] * 4
    assert group_counts(rows, "test") == [500] * 4


def test_at_least_one_conflicting_image() -> None:
    rows = Outfits(severity=0.9999, train_images=20).listing()
    assert group_counts(rows, "train") == [9, 1, 1, 9]


def test_listing_uses_each_garment_once_and_only_its_splits_tiles() -> None:
    rows = Outfits().listing()
    assert rows.schema == LISTING_SCHEMA
    assert len(set(rows["id"].to_pylist())) == rows.num_rows == 6400
    assert len(set(rows["garment"].to_pylist())) == 6400
    for row in rows.select(["split", "attribute", "tile", "crop_x", "crop_y"]).to_pylist():
        assert row["tile"] in deal_tiles(("grass", "gravel")[row["attribute"]])[row["split"]]
        assert 0 <= row["crop_x"] <= TILE - 48 and 0 <= row["crop_y"] <= TILE - 48


def test_listing_depends_on_the_seed_only() -> None:
    assert Outfits().listing().equals(Outfits().listing())
    one, other = Outfits().listing(), Outfits(seed=1).listing()
    assert set(one["id"].to_pylist()) != set(other["id"].to_pylist())


def test_images_are_a_function_of_the_rows() -> None:
    rows = SMALL.listing()
    together = SMALL.images(rows)
    backwards = pickle.loads(pickle.dumps(SMALL)).images(
        rows.take(list(range(rows.num_rows))[::-1])
    )
    assert together == backwards[::-1]
    with Image.open(io.BytesIO(together[0])) as image:
        assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "PNG")


def test_grounds_look_different() -> None:
    rows = SMALL.listing()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in SMALL.images(rows)])
    corner = pixels[:, :4, :4].mean((1, 2))
    grass = rows["attribute"].to_numpy() == 0
    assert (corner[grass, 1] > corner[grass, 2]).all()  # greener than blue
    assert (corner[~grass, 2] > corner[~grass, 1]).mean() > 0.95


@needs_idx
def test_any_pair_at_full_size_from_idx(caplog: pytest.LogCaptureFixture) -> None:
    outfits = Outfits(pair=("coat", "dress"), idx_path=str(IDX))
    rows = outfits.listing()
    assert group_counts(rows, "train") == [1980, 20, 20, 1980]
    assert [record.message.count("'dress'") for record in caplog.records] == [1]
    dresses = rows.filter(rows["label"].to_numpy() == 1).slice(0, 3)
    assert len(outfits.images(dresses)) == 3


def test_small_reserve_is_refused_with_both_fixes() -> None:
    with pytest.raises(ValueError, match="450 available") as refusal:
        Outfits(pair=("coat", "dress")).listing()
    for word in ("'dress'", "3200 needed", "train_images", "test_images", "dataset.path"):
        assert word in str(refusal.value)
    few = Outfits(("dress", "bag"), train_images=400, validation_images=40, test_images=200)
    assert few.listing().num_rows == 640


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"severity": 1.0}, ("dataset.severity", "1.0", "0.5 <= severity < 1")),
        ({"severity": 0.3}, ("dataset.severity", "0.3")),
        ({"pair": ("coat", "hat")}, ("dataset.pair", "hat", "pullover")),
        ({"pair": ("coat", "coat")}, ("dataset.pair", "different")),
        ({"attributes": ("grass", "sand")}, ("dataset.attributes", "sand", "gravel")),
        ({"test_images": 10}, ("dataset.test_images", "10", "multiple of 4")),
        ({"train_images": 0}, ("dataset.train_images", "at least 4")),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as refusal:
        Outfits(**change).listing()  # type: ignore[arg-type]
    for word in words:
        assert word in str(refusal.value)


def test_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        Outfits(pair=("coat", "dress"), idx_path=str(tmp_path)).listing()


def test_damaged_data_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in garments.DATA.iterdir():
        shutil.copy(path, tmp_path)
    damaged = tmp_path / "gravel.png"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(garments, "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"gravel\.png: sha256 is .* expects .* reinstall"):
        garments.shipped_file("gravel.png")
    assert garments.shipped_file("grass.png").exists()
