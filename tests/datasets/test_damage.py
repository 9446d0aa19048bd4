"""Damaged training images: what is simulated, what a folder names, what is kept of both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from raysynth.config.files import load_config
from raysynth.datasets.damage import Damage, decoded, filled, keep, may_be_damaged, read_damage
from raysynth.datasets.listing import list_dataset
from raysynth.datasets.pictures import Unreadable
from raysynth.errors import ConfigError, DataError
from raysynth.storage.tables import decode_bytes
from tests.datasets.test_folder import balanced_rows, config_for, write_folder

SMALL = [f"dataset.{k}" for k in ("train_images=80", "validation_images=8", "test_images=8")]
SMALL.append("dataset.severity=0.9")


def pixels_of(dataset, listing) -> np.ndarray:
    return decode_bytes(pa.array(dataset.images(listing)))


def listed(*overrides):
    dataset, _, listing = list_dataset(load_config(None, [*SMALL, *overrides]).dataset, 0)
    return dataset, listing


def test_patches_are_missing_of_training_images_alone(tmp_path):
    whole, listing = listed()
    some, again = listed("dataset.missing=0.3")
    assert again.equals(listing)
    train = np.array(listing["split"].to_pylist()) == "train"
    before, after = pixels_of(whole, listing), pixels_of(some, listing)
    assert np.array_equal(before[~train], after[~train])
    keep(some, listing, some.images(listing), f"{tmp_path}/train-00000.parquet")
    found = read_damage(str(tmp_path))
    assert set(found) == set(listing["id"].filter(pa.array(train)).to_pylist())
    ids = listing["id"].filter(pa.array(train)).to_pylist()
    masks = np.stack([decoded(found[name][0]) for name in ids])
    assert 0.25 < (~masks).mean() < 0.35
    patches = masks.reshape(-1, 8, 4, 8, 4)
    assert (patches == patches[:, :, :1, :, :1]).all(), "4 x 4 pixels are whole or gone"
    assert np.array_equal(before[train][masks], after[train][masks]), "what is there stays"
    first = after[train][0]
    assert len(np.unique(first[~masks[0]], axis=0)) == 1, "the rest has one colour"
    assert np.allclose(first[~masks[0]][0], before[train][0][masks[0]].mean(0), atol=0.5)
    reversed_rows = listing.take(np.arange(len(listing))[::-1])
    assert np.array_equal(pixels_of(some, reversed_rows)[::-1], after), "of its name alone"


def test_noise_is_added_as_asked():
    whole, listing = listed()
    noisy, _ = listed("dataset.noise=10")
    change = pixels_of(noisy, listing).astype(float) - pixels_of(whole, listing)
    train = np.array(listing["split"].to_pylist()) == "train"
    assert 8.5 < change[train].std() < 10.5 and not change[~train].any()
    assert noisy.damage("a", 32, 32) == Damage(None, 10.0)


def test_one_patch_is_always_there():
    dataset, _ = listed("dataset.missing=0.999")
    assert all(dataset.damage(str(n), 8, 8).mask.any() for n in range(50))


def test_nothing_is_kept_of_whole_images(tmp_path):
    whole, listing = listed()
    keep(whole, listing, whole.images(listing), f"{tmp_path}/train-00000.parquet")
    assert read_damage(str(tmp_path)) == {}
    assert not may_be_damaged(load_config(None, []).dataset)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert filled(image, Damage(None, 3.0)) is image


def named(tmp_path, damage: dict[int, tuple[str, object]], **masks: np.ndarray):
    """A folder of 8 x 8 images whose metadata names masks and noise of some rows."""
    splits = ("train", "train", "validation", "test")
    rows = [(*row, splits[n % 4]) for n, row in enumerate(balanced_rows())]
    folder = write_folder(tmp_path / "data", rows)
    frame = pd.read_csv(folder / "metadata.csv")
    frame["mask"] = [damage.get(n, ("", ""))[0] for n in range(len(frame))]
    frame["noise"] = [damage.get(n, ("", ""))[1] for n in range(len(frame))]
    frame.to_csv(folder / "metadata.csv", index=False)
    for name, mask in masks.items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
    return folder


def test_a_folder_names_masks_and_noise(tmp_path):
    half = np.zeros((8, 8), bool)
    half[:, :4] = True
    folder = named(tmp_path, {0: ("half.png", ""), 1: ("", 12.5)}, half=half)
    config = config_for(folder).dataset
    assert may_be_damaged(config)
    dataset, _, listing = list_dataset(config, 0)
    images = dataset.images(listing.slice(0, 3))
    keep(dataset, listing.slice(0, 3), images, f"{tmp_path}/train-00000.parquet")
    found = read_damage(str(tmp_path))
    ids = listing["id"].to_pylist()
    assert np.array_equal(decoded(found[ids[0]][0]), half) and found[ids[0]][1] == 0
    assert found[ids[1]] == (b"", 12.5) and len(found) == 2, "the third is a test image"
    whole = write_folder(tmp_path / "plain", balanced_rows())
    plain, _, _ = list_dataset(config_for(whole).dataset, 0)
    assert not hasattr(plain, "said")


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.ones((4, 8), bool), "has 8 x 4 pixels, expected 8 x 8"),
        (np.zeros((8, 8), bool), "says that all of it is missing"),
    ],
)
def test_masks_that_cannot_be_are_named_with_their_image(tmp_path, mask, reason):
    folder = named(tmp_path, {0: ("m.png", "")}, m=mask)
    dataset, _, listing = list_dataset(config_for(folder).dataset, 0)
    first, second = dataset.images(listing.slice(0, 2))
    assert isinstance(first, Unreadable) and reason in first.reason
    assert isinstance(second, bytes)


def test_metadata_that_cannot_be_is_refused(tmp_path):
    folder = named(tmp_path, {0: ("", "much")})
    with pytest.raises(
        DataError, match=r"noise of images/cat-day-0.png is no number from 0 to 255"
    ):
        list_dataset(config_for(folder).dataset, 0)
    folder = named(tmp_path / "more", {0: ("nowhere.png", "")})
    with pytest.raises(DataError, match=r"nowhere\.png"):
        list_dataset(config_for(folder).dataset, 0)
    with pytest.raises(ConfigError, match="missing"):
        load_config(None, ["dataset.missing=1"])
