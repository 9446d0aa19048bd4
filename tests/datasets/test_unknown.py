"""Attributes that are not known: a folder of labels alone, or with attributes of some images."""

from __future__ import annotations

import pytest

from raysynth.config.files import load_config
from raysynth.datasets.layouts.folder import Folder
from raysynth.datasets.listing import few_measured, list_dataset, split_counts
from raysynth.errors import ConfigError, DataError
from tests.datasets.test_folder import balanced_rows, config_for, write_folder

UNKNOWN = "dataset.attributes=unknown"


def labels_alone(folder, *, column=False, each=20):
    """A folder without an attribute; `column`: of empty cells."""
    write_folder(folder, [row[:2] for row in balanced_rows(each=each)])
    text = (folder / "metadata.csv").read_text().splitlines()
    if column:
        text = [f"{line},{'attribute' if not n else ''}" for n, line in enumerate(text)]
        (folder / "metadata.csv").write_text("\n".join(text) + "\n")
    return folder


@pytest.mark.parametrize("column", [False, True])
def test_a_folder_of_labels_alone_is_read_where_attributes_are_unknown(tmp_path, column):
    folder = labels_alone(tmp_path, column=column)
    config = config_for(folder, UNKNOWN)
    _, groups, listing = list_dataset(config.dataset, 0)
    assert groups.label_names == ("cat", "dog") and groups.attribute_names == ("unknown",)
    counts = split_counts(listing, groups)
    assert {split: found.tolist() for split, found in counts.items()} == {
        "train": [28, 28],
        "validation": [4, 4],
        "test": [8, 8],
    }
    assert listing.equals(list_dataset(config.dataset, 0)[2])
    said = r"with an empty file_name/label/attribute.*attributes=unknown" if column else "missing"
    with pytest.raises(DataError, match=said):
        list_dataset(config_for(folder).dataset, 0)


def test_attributes_may_be_known_of_some_images(tmp_path):
    rows = [
        (f"images/{s}{y}{a}{i}.png", y, a if s == "test" or i < 2 else None, s)
        for s in ("train", "validation", "test")
        for y in ("cat", "dog")
        for a in ("day", "night")
        for i in range(6)
    ]
    config = config_for(write_folder(tmp_path, rows), UNKNOWN)
    _, groups, listing = list_dataset(config.dataset, 0)
    assert groups.attribute_names == ("day", "night")
    for row, (_, label, attribute, _) in zip(listing.to_pylist(), rows, strict=True):
        known = -1 if attribute is None else ("day", "night").index(attribute)
        assert row["attribute"] == known and row["label"] == ("cat", "dog").index(label)
        assert row["group"] == (-1 if known < 0 else 2 * row["label"] + known)
    counts = split_counts(listing, groups)
    assert counts["train"].tolist() == [2] * 4 and counts["test"].tolist() == [6] * 4
    assert len(few_measured(counts, groups)) == 2
    with pytest.raises(ConfigError, match=r"dataset\.severity: the attributes of 32 image\(s\)"):
        list_dataset(config.dataset.model_copy(update={"severity": 0.9}), 0)


def test_splits_are_drawn_beside_unknown_attributes(tmp_path):
    rows = [(f, y, a if n % 2 else None) for n, (f, y, a) in enumerate(balanced_rows())]
    table = Folder(str(write_folder(tmp_path, rows)), attributes=False).listing()
    for name, count in (("validation", 8), ("test", 16)):
        assert table["split"].to_pylist().count(name) == count
    unknown = [r["attribute"] for r in table.to_pylist() if r["split"] == "test"].count(-1)
    assert unknown == 8


def test_a_severity_needs_attributes(tmp_path):
    config = config_for(labels_alone(tmp_path), UNKNOWN, "dataset.severity=0.9")
    with pytest.raises(ConfigError, match=r"attributes of 80 image.*Fix: dataset.severity=origin"):
        list_dataset(config.dataset, 0)


def test_few_images_of_a_label_are_refused(tmp_path):
    config = config_for(labels_alone(tmp_path, each=12), UNKNOWN)
    with pytest.raises(DataError, match=r"fewer than 4 validation images of label.*cat: 2, dog: 2"):
        list_dataset(config.dataset, 0)


def test_test_images_whose_attributes_are_known_have_all_groups(tmp_path):
    rows = [
        (f"images/{s}{y}{a}{i}.png", y, a if s == "test" else None, s)
        for s in ("train", "validation", "test")
        for y in ("cat", "dog")
        for a in ("day", "night")
        for i in range(4)
        if (s, y, a) != ("test", "dog", "night")
    ]
    config = config_for(write_folder(tmp_path, rows), UNKNOWN)
    with pytest.raises(DataError, match=r"no test image in group\(s\) dog/night"):
        list_dataset(config.dataset, 0)


def test_a_method_finds_what_is_unknown():
    config = load_config(None, [UNKNOWN])
    assert config.grouping.method.name == "conflict_mining" and not config.grouping.is_given
    own = load_config(None, [UNKNOWN, "grouping.method={name: conflict_mining, steps: 7}"])
    assert own.grouping.method.given == {"steps": 7}
    with pytest.raises(ConfigError, match=r"attributes: unknown, but grouping.method=given.*Fix"):
        load_config(None, [UNKNOWN, "grouping.method=given"])
    again = type(config).model_validate(config.model_dump(mode="json"))
    assert again == config
