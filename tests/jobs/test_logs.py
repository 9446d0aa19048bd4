"""The log of a run, read from its folder while others write it."""

from __future__ import annotations

import threading
import time

import pytest

import raysynth.jobs.logs
from raysynth.errors import ConfigError
from raysynth.jobs.logs import follow_log, log_of
from tests.jobs.test_status import put


def write(root, name: str, text: str) -> None:
    (root / "log").mkdir(parents=True, exist_ok=True)
    with (root / "log" / name).open("a") as file:
        file.write(text)


def test_the_last_attempt_is_shown_in_the_order_of_its_parts(tmp_path):
    assert log_of(str(tmp_path)) is None
    write(tmp_path, "0009-20261130T100000Z-000.txt", "old\n")
    write(tmp_path, "0010-20261130T110000Z-001.txt", "second\n")
    write(tmp_path, "0010-20261130T110000Z-000.txt", "first é\n")
    assert log_of(str(tmp_path)) == "first é\nsecond\n"


def test_a_log_is_followed_over_parts_and_attempts_until_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(raysynth.jobs.logs, "LOOK_SECONDS", 0.02)
    write(tmp_path, "0001-20261130T100000Z-000.txt", "of before\n")
    write(tmp_path, "0002-20261130T110000Z-000.txt", "one\nhalf")
    put(tmp_path)
    said: list[str] = []
    thread = threading.Thread(target=follow_log, args=(str(tmp_path), said.append))
    thread.start()
    deadline = time.monotonic() + 30
    while said != ["one\n"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said == ["one\n"], "half a line waits for its end"
    write(tmp_path, "0002-20261130T110000Z-000.txt", " a line\n")
    write(tmp_path, "0002-20261130T110000Z-001.txt", "a new part\n")
    write(tmp_path, "0003-20261130T120000Z-000.txt", "again, without an end")
    put(tmp_path, ended={"at": time.time(), "how": "finished", "code": None})
    thread.join(30)
    assert not thread.is_alive()
    assert "".join(said) == "one\nhalf a line\na new part\nagain, without an end"


def test_a_run_without_a_log_is_refused(tmp_path):
    put(tmp_path, ended={"at": time.time(), "how": "finished", "code": None})
    with pytest.raises(ConfigError, match=r"no log\. Fix: `raysynth status`"):
        follow_log(str(tmp_path), print)


def test_a_log_on_an_object_store_is_read_from_where_it_was(s3, monkeypatch):
    from raysynth.storage.files import write_atomic

    part = f"{s3}/birds/log/0001-20261130T100000Z-000.txt"
    write_atomic(part, b"one\n")
    assert log_of(f"{s3}/birds") == "one\n"
    write_atomic(part, b"one\ntwo\n")
    assert raysynth.jobs.logs._from(part, 4) == b"two\n"
    assert raysynth.jobs.logs._from(part, 8) == b""
