"""Folders that say what their images show: read as they are, refused by name."""

from __future__ import annotations

import pytest

from raysynth.config.files import load_config
from raysynth.datasets.contents import folder_digest
from raysynth.datasets.listing import list_dataset, split_counts
from raysynth.errors import DataError
from tests.datasets.trees import write_tree

BIRDS = {"cat/day": 20, "cat/night": 12, "dog/day": 12, "dog/night": 20}


def config_for(folder, *overrides):
    return load_config(None, ["dataset.name=tree", f"dataset.path={folder}", *overrides])


def read(folder, *overrides):
    config = config_for(folder, *overrides)
    dataset, groups, listing = list_dataset(config.dataset, 0)
    return dataset, groups, listing, split_counts(listing, groups)


def test_folders_are_labels_and_attributes_and_small_groups_get_two_of_each_split(tmp_path):
    dataset, groups, listing, counts = read(write_tree(tmp_path, BIRDS))
    assert (groups.label_names, groups.attribute_names) == (("cat", "dog"), ("day", "night"))
    assert counts["train"].tolist() == [14, 8, 8, 14]
    assert counts["validation"].tolist() == [2] * 4 and counts["test"].tolist() == [4, 2, 2, 4]
    assert listing["id"][0].as_py() == "cat/day/000.png"
    assert isinstance(dataset.images(listing.slice(0, 1))[0], bytes)


def test_folders_of_splits_above_are_taken_and_a_missing_validation_is_cut_from_train(tmp_path):
    sizes = {f"{split}/{name}": 10 for split in ("train", "test") for name in BIRDS}
    *_, counts = read(write_tree(tmp_path / "two", sizes))
    assert counts["train"].tolist() == [8] * 4 and counts["validation"].tolist() == [2] * 4
    assert counts["test"].tolist() == [10] * 4
    *_, counts = read(write_tree(tmp_path / "three", sizes | {f"valid/{n}": 3 for n in BIRDS}))
    assert counts["train"].tolist() == [10] * 4 and counts["validation"].tolist() == [3] * 4


def test_labels_alone_are_read_where_attributes_are_unknown(tmp_path):
    folder = write_tree(tmp_path, {"cat": 60, "dog": 60})
    with pytest.raises(DataError, match=r"(?s)not in a folder <label>/<attr.*attributes=unknown"):
        read(folder)
    _, groups, listing, _ = read(folder, "dataset.attributes=unknown")
    assert groups.label_names == ("cat", "dog") and len(listing) == 120


def test_images_beside_the_tree_are_named_and_other_files_passed_over(tmp_path):
    folder = write_tree(tmp_path, BIRDS)
    (folder / "cat/day/notes.txt").write_text("none")
    (folder / "cat/day/._000.png").write_bytes(b"left by a system")
    write_tree(folder, {".thumbnails/cat": 2})
    assert len(read(folder)[2]) == 64
    write_tree(folder, {"cat": 1})
    with pytest.raises(DataError, match=r"cat/000.png: not in a folder <label>/<attribute>"):
        read(folder)


def test_linked_folders_inside_are_followed_those_outside_and_circles_named(tmp_path):
    folder = write_tree(tmp_path / "data", BIRDS)
    write_tree(tmp_path / "kept", {"x": 9})
    (folder / "dog/evening").symlink_to(folder / "cat/day")
    with pytest.raises(DataError, match=r"image in group\(s\) cat/evening"):
        read(folder)
    (folder / "cat/evening").symlink_to(folder / "cat/night")
    assert read(folder)[1].attribute_names == ("day", "evening", "night")
    (folder / "cat/evening").unlink()
    (folder / "cat/evening").symlink_to(tmp_path / "kept/x")
    with pytest.raises(DataError, match=r"cat/evening -> .*kept/x is a link .* outside .*cp -rL"):
        read(folder)
    (folder / "cat/evening").unlink()
    (folder / "cat/evening").symlink_to(folder / "cat")
    with pytest.raises(DataError, match=r"cat/evening -> .*: a circle. Fix: remove the link"):
        read(folder)


def test_another_picture_under_the_same_name_is_another_data_set(tmp_path):
    folder = write_tree(tmp_path, BIRDS)
    before = folder_digest(str(folder))
    write_tree(folder, {"cat/day": 1}, side=9)
    assert folder_digest(str(folder)) != before


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({}, "no image in"), ({"cat/day": 9}, "one label only"), ({"a/x": 9, "b/x": 9}, "one attr")],
)
def test_what_is_no_data_set_is_refused(tmp_path, sizes, said):
    with pytest.raises(DataError, match=said):
        read(write_tree(tmp_path, sizes))
