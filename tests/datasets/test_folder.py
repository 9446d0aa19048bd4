"""The folder data set: layouts, refusals, pixel formats."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, features

from raysynth.config.files import load_config
from raysynth.datasets.layouts.folder import Folder
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.datasets.pictures import Unreadable, read_files, to_rgb_bytes
from raysynth.errors import ConfigError, DataError


def write_folder(folder, rows, *, parquet=False):
    """A folder of 8x8 images with metadata from (file_name, label, attribute[, split])."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = ["file_name", "label", "attribute", "split"]
    frame = pd.DataFrame(rows, columns=names[: len(rows[0])])
    for number, name in enumerate(frame["file_name"]):
        if not name.startswith((".", "/")):
            Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(folder / name)
    if parquet:
        frame.to_parquet(folder / "metadata.parquet")
    else:
        frame.to_csv(folder / "metadata.csv", index=False)
    return folder


def balanced_rows(labels=("cat", "dog"), attributes=("day", "night"), each=20):
    return [
        (f"images/{y}-{a}-{i}.png", y, a) for y in labels for a in attributes for i in range(each)
    ]


def config_for(folder, *overrides):
    return load_config(None, ["dataset.name=folder", f"dataset.path={folder}", *overrides])


@pytest.mark.parametrize("parquet", [False, True])
def test_three_by_two_groups_with_a_stratified_split(tmp_path, parquet):
    rows = balanced_rows(("cat", "dog", "red_fox"), ("day", "night"))
    config = config_for(write_folder(tmp_path, rows, parquet=parquet))
    _, groups, listing = list_dataset(config.dataset, seed=0)
    assert groups.label_names == ("cat", "dog", "red_fox")
    assert groups.label_words == ("cat", "dog", "red fox")
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [14] * 6
    assert counts["validation"].tolist() == [2] * 6
    assert counts["test"].tolist() == [4] * 6
    again = list_dataset(config.dataset, seed=0)[2]
    assert listing.equals(again) and not listing.equals(list_dataset(config.dataset, seed=1)[2])


def test_given_splits_are_kept_and_severity_thins_train_only(tmp_path):
    rows = [
        (f"images/{s}{y}{a}{i}.png", y, a, s)
        for s in ("train", "val", "test")
        for y in (0, 1)
        for a in (0, 1)
        for i in range(20 if y == a else 10)
    ]
    config = config_for(write_folder(tmp_path, rows), "dataset.severity=0.95")
    _, groups, listing = list_dataset(config.dataset, seed=0)
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [20, 2, 2, 20]
    assert counts["validation"].tolist() == counts["test"].tolist() == [20, 10, 10, 20]


def test_words_of_the_config_replace_the_names(tmp_path):
    folder = write_folder(tmp_path, balanced_rows())
    config = config_for(folder, "dataset.label_words={cat: a tabby cat}")
    assert list_dataset(config.dataset, 0)[1].label_words == ("a tabby cat", "dog")
    wrong = config_for(folder, "dataset.attribute_words={noon: noon}")
    with pytest.raises(ConfigError, match=r"noon is no name .* expected day, night"):
        list_dataset(wrong.dataset, 0)


def test_a_label_without_an_attribute_is_refused(tmp_path):
    rows = [row for row in balanced_rows() if row[1:] != ("dog", "night")]
    with pytest.raises(DataError, match=r"no .* image in group\(s\) dog/night"):
        list_dataset(config_for(write_folder(tmp_path, rows)).dataset, 0)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "images/../../x.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, name):
    write_folder(tmp_path, balanced_rows())
    frame = pd.read_csv(tmp_path / "metadata.csv")
    frame.loc[0, "file_name"] = name
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match="leaves the folder"):
        Folder(str(tmp_path)).listing()


def test_links_that_leave_the_folder_are_refused(tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (folder / "images/cat-day-0.png").unlink()
    (folder / "images/cat-day-0.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="link that leaves the folder"):
        Folder(str(folder)).listing()


def test_none_and_na_are_names(tmp_path):
    folder = write_folder(tmp_path, balanced_rows(("NA", "dog"), ("None", "hat")))
    _, groups, listing = list_dataset(config_for(folder).dataset, seed=0)
    assert (groups.label_names, groups.attribute_names) == (("NA", "dog"), ("None", "hat"))
    assert len(listing) == 80


def test_metadata_problems_are_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        Folder(str(tmp_path / "missing")).listing()
    with pytest.raises(DataError, match=r"no metadata.csv or metadata.parquet"):
        Folder(str(tmp_path)).listing()
    folder = write_folder(tmp_path, balanced_rows())
    frame = pd.read_csv(folder / "metadata.csv")
    cases = [
        (frame.drop(columns="attribute"), r"column\(s\) attribute missing"),
        (pd.concat([frame, frame.head(1)]), "named more than once"),
        (
            pd.concat([frame, frame.head(1).assign(file_name="./" + frame["file_name"][0])]),
            "named more than once",
        ),
        (frame.assign(split="nowhere"), "split nowhere unknown"),
        (frame.assign(file_name="images/gone.png").head(1), "not there"),
        (frame.assign(label=None), "empty"),
        (frame.head(0), "no rows"),
    ]
    for broken, said in cases:
        broken.to_csv(folder / "metadata.csv", index=False)
        with pytest.raises(DataError, match=said):
            Folder(str(folder)).listing()


def pixels(image: Image.Image, fmt: str = "PNG", size=None, **save) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, format=fmt, **save)
    out = Image.open(io.BytesIO(to_rgb_bytes(buffer.getvalue(), size)))
    assert out.mode == "RGB"
    return np.asarray(out)


def test_pixel_formats_become_eight_bit_rgb():
    assert (pixels(Image.new("L", (4, 4), 77)) == 77).all()
    assert (pixels(Image.new("RGBA", (4, 4), (0, 0, 0, 0))) == 255).all()
    assert (pixels(Image.new("LA", (4, 4), (10, 255))) == 10).all()
    deep = Image.fromarray(np.full((4, 4), 257 * 200, np.uint16))
    assert (pixels(deep) == 200).all()
    cmyk = pixels(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG")
    assert cmyk[0, 0, 0] > 200 and cmyk[0, 0, 1] < 80
    palette = Image.new("RGB", (4, 4), (9, 8, 7)).quantize(4)
    assert (pixels(palette) == (9, 8, 7)).all()


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (8, 4), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    assert pixels(image, "JPEG", exif=exif).shape == (8, 4, 3)


def test_image_size_crops_the_centre_square():
    image = Image.new("RGB", (30, 10))
    image.paste((255, 255, 255), (10, 0, 20, 10))
    assert (pixels(image, size=10) == 255).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_broken_avif_cannot_be_read(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "AVIF")
    (tmp_path / "broken.avif").write_bytes(buffer.getvalue()[:-20] + b"\xff" * 20)
    (read,) = read_files(str(tmp_path), ["broken.avif"], None)
    assert isinstance(read, Unreadable)


def test_plain_rgb_bytes_pass_unchanged_and_broken_ones_raise():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="JPEG")
    assert to_rgb_bytes(buffer.getvalue()) == buffer.getvalue()
    with pytest.raises(OSError):
        to_rgb_bytes(buffer.getvalue()[:100])
