"""Files of a data set: what they are, where they lie, and what they hold."""

from __future__ import annotations

import os
import shutil
import socket
import time

import fsspec
import pytest
from PIL import Image

from raysynth.datasets import contents
from raysynth.datasets.contents import folder_digest
from raysynth.datasets.files import clipped, some
from raysynth.datasets.layouts.folder import Folder
from raysynth.datasets.listing import list_dataset
from raysynth.errors import DataError
from raysynth.pipeline import stage_digests
from raysynth.storage.private_folder import is_private
from tests.datasets.test_folder import balanced_rows, config_for, write_folder
from tests.datasets.test_published import listed, write_image, write_utkface

LONG_AGO = time.time_ns() - 10**12


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_pipes_and_sockets_are_no_images(tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    for make in (os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(path)):
        place = folder / "images/cat-day-0.png"
        place.unlink()
        make(str(place))
        with pytest.raises(DataError, match=r"cat-day-0\.png is no plain file but .* a pipe"):
            Folder(str(folder)).listing()
        assert folder_digest(str(folder))  # and nothing waits for it


def test_what_is_kept_of_files_leaves_a_place_for_notes_of_runs(tmp_path):
    old = os.umask(0o022)
    try:
        contents._Cache(str(tmp_path)).write({})
    finally:
        os.umask(old)
    assert (tmp_path / "cache/raysynth/contents").is_dir()
    assert is_private(tmp_path / "cache/raysynth")


def test_linked_folders_inside_are_followed_and_those_outside_said(tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    (folder / "images").rename(folder / "real")
    (folder / "images").symlink_to("real")
    assert len(Folder(str(folder)).listing()) == 80
    (folder / "images").unlink()
    (folder / "real").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="link that leaves the folder, or lies in one"):
        Folder(str(folder)).listing()


def test_utkface_follows_no_link_out_of_its_folder(tmp_path):
    faces = write_utkface(tmp_path / "faces")
    name = "30_0_0_20180104170000000.jpg"
    write_image(tmp_path / "elsewhere" / name)
    (faces / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(DataError, match=r"is a link that leaves the folder"):
        listed("utkface", faces)
    (faces / name).unlink()
    os.mkfifo(faces / name)
    with pytest.raises(DataError, match=r"is no plain file but"):
        listed("utkface", faces)
    (faces / name).unlink()
    (faces / "part9").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"part9 in .* is a link to a folder outside it"):
        listed("utkface", faces)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("abfs://container/data", "needs a package that is not installed.*Fix: install"),
        ("foo://data", "cannot be read: .*Protocol not known.*Fix: a folder"),
        ("http://127.0.0.1:9/data", "cannot be read.*Fix: a folder"),
    ],
)
def test_storage_that_cannot_be_reached_is_a_refusal(path, said):
    config = config_for(path)
    for refused in (
        lambda: list_dataset(config.dataset, 0),
        lambda: stage_digests(config, until="ingest"),
    ):
        with pytest.raises(DataError, match=said) as error:
            refused()
        assert str(error.value).startswith("dataset.path: ") and len(str(error.value)) < 1000


def test_another_picture_of_the_same_size_is_another_data_set(tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    before = folder_digest(str(folder))
    assert folder_digest(str(folder)) == before
    path = folder / "images/cat-day-0.png"
    data, times = path.read_bytes(), os.stat(path)
    changed = bytearray(data)
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder_digest(str(folder)) != before
    path.write_bytes(data)
    assert folder_digest(str(folder)) == before
    path.rename(path.with_name("other.png"))
    assert folder_digest(str(folder)) != before


def test_a_copy_with_other_times_is_the_same_data_set(tmp_path):
    folder = write_folder(tmp_path / "data", balanced_rows())
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy/images").iterdir():
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert folder_digest(str(folder)) == folder_digest(str(tmp_path / "copy"))
    assert folder_digest(str(tmp_path / "nothing")) == ""


def test_unchanged_files_are_read_once(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data", balanced_rows())
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))  # or a test would wait for two seconds
    before, read = folder_digest(str(folder)), []
    sha256 = contents._sha256
    monkeypatch.setattr(contents, "_sha256", lambda path: read.append(path) or sha256(path))
    assert folder_digest(str(folder)) == before and read == []
    Image.new("RGB", (8, 8), "red").save(folder / "images/cat-day-0.png")
    (folder / "images/cat-day-1.png").unlink()
    assert folder_digest(str(folder)) != before
    assert [os.path.basename(path) for path in read] == ["cat-day-0.png"]


def test_a_file_that_was_just_written_is_read_again(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data", balanced_rows())
    before, read = folder_digest(str(folder)), []
    sha256 = contents._sha256
    monkeypatch.setattr(contents, "_sha256", lambda path: read.append(path) or sha256(path))
    assert folder_digest(str(folder)) == before and len(read) == 81


@pytest.mark.parametrize("kind", ["cut", "others may write", "no folder"])
def test_a_cache_that_cannot_be_trusted_or_written_is_left(tmp_path, monkeypatch, kind):
    folder = write_folder(tmp_path / "data", balanced_rows())
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))
    before = folder_digest(str(folder))
    (cache,) = (tmp_path / "cache/raysynth/contents").iterdir()
    assert os.stat(cache).st_mode & 0o777 == 0o600
    if kind == "cut":
        cache.write_bytes(cache.read_bytes()[:50])
    elif kind == "others may write":
        os.chmod(cache, 0o666)
    else:
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("a file")
    assert folder_digest(str(folder)) == before


def test_object_stores_say_the_content_themselves():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/told/a.png", b"one")
    filesystem.pipe("/told/metadata.csv", b"file_name")
    before = folder_digest("memory://told")
    assert folder_digest("memory://told") == before
    filesystem.pipe("/told/a.png", b"two")
    assert folder_digest("memory://told") != before


class Store:
    """What s3fs says of objects: an ETag, whatever the time."""

    def __init__(self, tag):
        self.tag = tag

    def find(self, root, detail):
        return {f"{root}/a.png": {"size": 3, "ETag": self.tag, "LastModified": time.time_ns()}}


def test_an_etag_is_the_content_of_an_object():
    one, again, other = (contents._remote(Store(tag), "bucket") for tag in ('"1"', '"1"', '"2"'))
    assert one == again != other


def test_names_in_messages_are_one_line_of_bounded_length():
    assert clipped("a\n\tb") == "a b" and len(clipped("x" * 9999)) == 100
    assert some(["x" * 9999] * 9).endswith("... and 6 more") and len(some(["x" * 9999] * 9)) < 400
