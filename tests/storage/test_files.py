"""Files on disks and on an S3 server: whole, found by name, removed, tried again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from raysynth.errors import DataError, StorageError, reason_of
from raysynth.storage.files import (
    create,
    misfits,
    move,
    open_storage,
    patiently,
    read_json,
    read_record,
    remove,
    remove_files,
    sizes_below,
    sweep,
    write_atomic,
)
from raysynth.storage.tables import parquet_files, read_table, write_table
from raysynth.terminal import masked

NAMES = ("seed=1", "runs [v2]", "a*b?", "plain")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on a disk, then one on S3."""
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_moved_on_a_disk_whole_whatever_its_name(tmp_path, name):
    source, target = f"{tmp_path}/{name}/.partial/x", f"{tmp_path}/{name}/real"
    write_atomic(f"{target}/old", b"old")
    for file in ("a", "b/c", "b/d e"):
        write_atomic(f"{source}/{file}", file.encode())
    move(source, target)
    assert sizes_below(target) == {"a": 1, "b/c": 3, "b/d e": 5}
    assert not os.path.exists(source)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_removed_whatever_its_name(place, name):
    target = f"{place}/{name}/real"
    for file in ("a", "b/c", "b/d e"):
        write_atomic(f"{target}/{file}", file.encode())
    assert sizes_below(target) == {"a": 1, "b/c": 3, "b/d e": 5}
    remove(f"{target}/a")
    remove(f"{target}/b")
    remove(f"{target}/b")
    assert sizes_below(f"{place}/{name}") == {}


def test_keys_that_mark_folders_on_s3_are_no_files(s3):
    """Ray leaves them where it makes folders."""
    import boto3

    bucket, client = s3.removeprefix("s3://"), boto3.client("s3")
    write_atomic(f"{s3}/work/below/a", b"1")
    for key in ("work/", "work/below/", "work/.train/"):
        client.put_object(Bucket=bucket, Key=key)
    assert sizes_below(f"{s3}/work") == {"below/a": 1}
    remove(f"{s3}/work")
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_buffer_of_arrow_is_bytes(place):
    sink = pa.BufferOutputStream()
    sink.write(b"abc")
    write_atomic(f"{place}/x", sink.getvalue())
    assert sizes_below(place) == {"x": 3}


@pytest.mark.parametrize("name", [*NAMES, "split=train/group=1"])
def test_tables_are_found_below_any_name_and_folders_are_no_columns(place, name):
    table = pa.table({"seed": [1, 2], "split": ["a", "b"]})
    write_table(table, f"{place}/{name}/real/train-00000.parquet")
    assert len(parquet_files(f"{place}/{name}/real")) == 1
    assert read_table(f"{place}/{name}").equals(table)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}"])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json: no JSON.*Fix:"):
        read_json(f"{tmp_path}/x.json")
    assert read_json(f"{tmp_path}/y.json") is None


def test_a_folder_in_a_files_place_is_named(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(DataError, match=r"x\.json: a folder, expected a file.*Fix:"):
        read_json(f"{tmp_path}/x.json")
    with pytest.raises(DataError, match=r"x\.json: a folder, expected a file.*Fix:"):
        write_atomic(f"{tmp_path}/x.json", b"{}")
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_record_without_its_keys_is_named(tmp_path):
    for text in ("[]", "null", '{"a": 1}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json: got .*expected an object with a, b"):
            read_record(f"{tmp_path}/x.json", "a", "b")
    (tmp_path / "x.json").write_text('{"a": 1, "b": 2}')
    assert read_record(f"{tmp_path}/x.json", "a", "b") == {"a": 1, "b": 2}


@pytest.mark.parametrize("cut", [0, 10, -5])
def test_a_cut_table_is_named(tmp_path, cut):
    write_table(pa.table({"id": ["a", "b"]}), f"{tmp_path}/x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[:cut])
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read"):
        read_table(str(tmp_path))


def test_a_table_that_is_not_there_or_lacks_a_column_is_named(tmp_path):
    with pytest.raises(DataError, match="no Parquet file"):
        read_table(str(tmp_path))
    with pytest.raises(DataError, match=r"gone\.parquet: cannot be read"):
        read_table(str(tmp_path), files=[f"{tmp_path}/gone.parquet"])
    write_table(pa.table({"id": ["a", "b"]}), f"{tmp_path}/x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: no column group; got id"):
        read_table(str(tmp_path), ["id", "group"])


FULL = """
import resource, sys
from raysynth.errors import StorageError
from raysynth.storage.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_atomic(sys.argv[1], b"x" * 2000)
"""


def test_a_full_disk_is_named_and_keeps_nothing_of_the_attempt(tmp_path):
    """A limit of the file size ends the write as a full disk does: after part of it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, f"{tmp_path}/big"], capture_output=True, text=True
    )
    assert f"StorageError: disk full at {tmp_path}/big" in done.stderr
    assert "the same command goes on" in done.stderr
    assert os.listdir(tmp_path) == []


def test_temporary_files_of_the_killed_are_swept(tmp_path):
    for name in ("a.tmp", "sub/b.parquet.1234.tmp", "sub/kept.parquet"):
        write_atomic(f"{tmp_path}/{name}", b"")
    sweep(str(tmp_path), deep=False)
    assert sorted(sizes_below(str(tmp_path))) == ["sub/b.parquet.1234.tmp", "sub/kept.parquet"]
    sweep(str(tmp_path))
    assert sorted(sizes_below(str(tmp_path))) == ["sub/kept.parquet"]


def failing(times: int, error: Exception):
    left = [error] * times

    def call() -> int:
        if left:
            raise left.pop()
        return 7

    return call


def test_a_storage_that_is_away_is_tried_again_until_patience_ends():
    away = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    assert patiently(failing(2, away), "s3://a/b") == 7
    with pytest.raises(StorageError, match=r"s3://a/b: the storage does not answer .*Fix:"):
        patiently(failing(9, away), "s3://a/b", patience=0.5)
    start = time.monotonic()
    with pytest.raises(StorageError, match="disk full at /a"):
        patiently(failing(1, OSError(errno.ENOSPC, "x")), "/a")
    with pytest.raises(FileNotFoundError):
        patiently(failing(1, FileNotFoundError(errno.ENOENT, "x")), "/a")
    assert time.monotonic() - start < 0.2


def test_messages_show_no_credentials():
    said = masked("cannot reach s3://key:secret@bucket/a?token=abc&x=1")
    assert said == "cannot reach s3://***@bucket/a?token=***&x=1"
    error = ConnectionError("GET https://me:word@host/x")
    with pytest.raises(StorageError) as found:
        patiently(failing(1, error), "s3://me:word@b/c", patience=0)
    assert "word" not in str(found.value)


@pytest.mark.slow
def test_refused_connections_are_outlasted(s3, s3_server, monkeypatch):
    """Nobody answers at the address for three seconds; then a door to the server opens there."""
    import s3fs

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{door.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(StorageError, match=r"does not answer.*the same command goes on"):
            write_atomic(f"{s3}/x", b"12", patience=0)
        port = int(s3_server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
        threading.Thread(target=open_late, args=(door, port, 3.0), daemon=True).start()
        start = time.monotonic()
        write_atomic(f"{s3}/x", b"12")
        assert time.monotonic() - start > 1
        assert sizes_below(s3) == {"x": 2}


def open_late(door: socket.socket, port: int, seconds: float) -> None:
    """Hand connections on to a port, after a while."""
    time.sleep(seconds)
    door.listen()
    with contextlib.suppress(OSError):  # the test has ended
        while True:
            near, _ = door.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=pour, args=(one, other), daemon=True).start()


def pour(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


def test_the_reason_of_a_worker_is_the_whole_message():
    ray = pytest.importorskip("ray")
    inner = DataError("what is wrong\nFix: how to mend it")
    task = ray.exceptions.RayTaskError("f", "Traceback ...", inner)
    assert reason_of(task) == reason_of(inner) == "what is wrong\nFix: how to mend it"
    assert reason_of(task.as_instanceof_cause()) == str(inner)
    told = RuntimeError(f"Traceback\n  x\nraysynth.errors.DataError: {inner}")
    assert reason_of(told) == str(inner)
    assert reason_of(RuntimeError("first\nlast\n")) == "last"
    assert reason_of(RuntimeError()) == "RuntimeError()"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"methods": 1}'])
def test_a_stages_json_that_is_cut_is_named(tmp_path, content):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json: .*Fix: delete"):
        read_record(str(path), "methods", kind=dict)


def test_files_that_are_not_of_their_sizes_are_named(place: str):
    folder = f"{place}/stage"
    for name in ("a.json", "in/b.json"):
        write_atomic(f"{folder}/{name}", b"four")
    sizes = sizes_below(folder)
    assert misfits(folder, sizes) == [] == misfits(folder, {})
    write_atomic(f"{folder}/a.json", b"longer")
    remove(f"{folder}/in/b.json")
    assert misfits(folder, sizes) == [
        f"{folder}/a.json has 6 bytes, expected 4",
        f"{folder}/in/b.json is missing",
    ]
    assert misfits(f"{place}/nothing", {}) == [f"{place}/nothing is missing"]


@pytest.mark.parametrize("refusal", [TypeError("mode"), NotImplementedError(), OSError(22, "501")])
def test_a_storage_that_cannot_make_a_file_for_one_alone_makes_it_all_the_same(
    tmp_path, monkeypatch, refusal
):
    from fsspec.implementations.memory import MemoryFileSystem

    place, real = f"memory://{tmp_path.name}/x", MemoryFileSystem.pipe_file

    def pipe_file(self, path: str, value: bytes, **given: str) -> None:
        if given:
            raise refusal
        real(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    assert [create(place, b"one"), create(place, b"another")] == [True, False]
    assert open_storage(place)[0].cat_file(open_storage(place)[1]) == b"one"


def test_files_are_removed_whatever_their_names_and_whether_they_are_there(place):
    for name in ("a", "b [v2]", "c/d*", "e"):
        write_atomic(f"{place}/run [v2]/{name}", b"1")
        write_atomic(f"{place}/plain/{name}", b"1")
    for folder in ("run [v2]", "plain"):
        remove_files(f"{place}/{folder}", ["a", "b [v2]", "gone"])
        remove_files(f"{place}/{folder}", ["e", "e2"])
        remove_files(f"{place}/{folder}", [])
        assert sizes_below(f"{place}/{folder}") == {"c/d*": 1}
