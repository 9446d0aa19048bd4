"""Folders of images and their captions, before anything is decoded; what is refused of them."""

from __future__ import annotations

import json
import re

import pytest

from raysynth.adapter_runs.folders import read_folders
from raysynth.adapter_runs.settings import read_train
from raysynth.datasets.heads import read_heads
from raysynth.errors import ConfigError, DataError
from tests.adapter_runs.folders import write_folders


def read(folder, *settings):
    return read_folders(read_train(str(folder), settings, to=f"{folder.parent}/runs/x"))


def test_each_folder_is_an_adapter_and_prompts_speak_of_it(tmp_path):
    folders = read(write_folders(tmp_path / "pets", {"my_dog": 2, "Cat 2": 3}), "seed=1")
    assert dict(folders.names) == {"Cat 2": "Cat-2", "my_dog": "my_dog"}
    assert folders.groups.names == ["Cat-2", "my_dog"]
    assert folders.files[0] == "Cat 2/0.png" and len(folders.files) == 5 and folders.own == 0
    assert set(folders.captions) == {"a photo of Cat 2", "a photo of my dog"}
    listing = folders.listing()
    assert listing["label"].to_pylist() == [0, 0, 0, 1, 1]
    assert set(listing["split"].to_pylist()) == {"train"}


def test_a_text_beside_an_image_comes_before_a_table_and_that_before_the_template(tmp_path):
    root = write_folders(tmp_path / "pets", {"cat": 3, "dog": 2})
    (root / "cat/0.txt").write_text("  a cat\n on a sofa ")
    (root / "cat/notes.txt").write_text("of nobody")
    (root / "cat/metadata.csv").write_text("file_name,caption\n0.png,no\n1.png,a cat asleep\n")
    rows = [{"file_name": "dog/0.png", "text": "a dog, wet"}, {"file_name": "dog/1.png"}]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folders = read(root, "caption=sks {name}")
    assert dict(zip(folders.files, folders.captions, strict=True)) == {
        "cat/0.png": "a cat on a sofa",
        "cat/1.png": "a cat asleep",
        "cat/2.png": "sks cat",
        "dog/0.png": "a dog, wet",
        "dog/1.png": "sks dog",
    }
    assert folders.own == 3


def refused(root, said, *settings):
    with pytest.raises(DataError, match=re.compile(said, re.DOTALL)) as error:
        read(root, *settings)
    assert "Fix: " in str(error.value) or "expected\n" in str(error.value)


def test_what_cannot_be_an_adapter_is_named(tmp_path):
    refused(tmp_path / "nowhere", "nowhere is not a folder")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no image")
    root = write_folders(tmp_path / "few", {"cat": 3, "dog": 1})
    (root / "empty").mkdir()
    refused(root, r"2 folder\(s\) with fewer than 2 image\(s\): dog \(1\), empty \(0\)")
    refused(root, r"1 folder\(s\) with fewer than 1 .*: empty \(0\)", "finetune.min_images=1")
    (root / "empty").rmdir()
    assert len(read(root, "finetune.min_images=1").names) == 2
    for name in ("stray.png", "cat/deeper/0.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((root / "cat/0.png").read_bytes())
        refused(root, rf"{name}: not right in a folder", "finetune.min_images=1")
        (root / name).unlink()


def test_two_folders_of_one_adapters_name_are_refused(tmp_path):
    refused(write_folders(tmp_path / "a", {"my dog": 2, "my-dog": 2}), "my dog, my-dog: .*'my-dog'")
    refused(write_folders(tmp_path / "b", {"Dog": 2, "dog": 2}), "upper and lower case alike")
    refused(write_folders(tmp_path / "c", {"狗": 2}), "no letter or digit")


def test_captions_that_cannot_be_read_are_refused(tmp_path):
    root = write_folders(tmp_path / "pets", {"cat": 2})
    (root / "cat/0.txt").write_bytes(b"\xff\xfe\x00")
    refused(root, r"cat/0\.txt: no UTF-8")
    (root / "cat/0.txt").unlink()
    for text, said in (
        ("file_name,caption\n9.png,x\n", r"1 row\(s\) name no image of these folders, e.g. 9.png"),
        ("name,words\n0.png,x\n", "columns name, words; expected file_name and caption"),
    ):
        (root / "cat/metadata.csv").write_text(text)
        refused(root, said)
    (root / "cat/metadata.csv").unlink()
    (root / "metadata.jsonl").write_text('{"file_name": ')
    refused(root, "metadata.jsonl: cannot be read as a table")


def test_files_that_are_no_images_are_named_before_anything_is_made(tmp_path):
    root = write_folders(tmp_path / "pets", {"cat": 2})
    (root / "cat/a.jpg").write_text("no picture")
    (root / "cat/b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 image.*cat/a.jpg: none of .*; cat/b.jpg: the file is"):
        read_heads(str(root), read(root).files)


def test_a_run_among_its_images_is_refused(tmp_path):
    root = write_folders(tmp_path / "pets", {"cat": 2})
    with pytest.raises(ConfigError, match="lies inside FOLDER"):
        read_train(str(root), to=f"{root}/runs/x")
