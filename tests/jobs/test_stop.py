"""A run is stopped by those who may, and nothing else is."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysynth.cluster.note import born
from raysynth.errors import ConfigError
from raysynth.jobs.folder import configuration_of, until_of
from raysynth.jobs.stop import stop_run
from tests.jobs.test_status import put

DRIVER = """
import signal, sys, time
from raysynth.cluster.note import SessionNote
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
SessionNote(sys.argv[1]).take()
print("at work", flush=True)
time.sleep(120)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start the driver of a run, with notes in a home of the test's."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    started: list[subprocess.Popen] = []

    def start(root: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, str(root)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "at work\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def here(process: subprocess.Popen) -> dict:
    pid, start = born(process.pid)
    return {"host": socket.gethostname(), "pid": pid, "born": start, "job": None}


def no_jobs():
    raise AssertionError("no cluster is asked")


def test_a_driver_on_this_machine_is_ended_by_its_note(start, tmp_path):
    root = tmp_path / "birds"
    process = start(root)
    put(root, driver=here(process))
    said = stop_run(str(root), no_jobs)
    assert process.poll() == 0, "it was asked to end, and has"
    assert said == f"process {process.pid} has ended. It goes on with: raysynth resume {root}"
    assert stop_run(str(root), no_jobs) == f"{root} is not at work"


def test_a_run_is_found_by_another_path_too(start, tmp_path):
    root = tmp_path / "birds"
    process = start(root)
    put(root, driver=here(process))
    (root / "config.yaml").write_text(f"storage_path: {tmp_path}\nname: birds\n")
    (tmp_path / "link").symlink_to(root)
    assert "has ended" in stop_run(str(tmp_path / "link"), no_jobs)
    assert process.poll() == 0


def test_a_process_that_only_the_runs_folder_names_is_left_alone(start, tmp_path):
    """Who may write to a shared storage may not have others' processes ended."""
    other = start(tmp_path / "other")
    put(tmp_path / "birds", driver=here(other))
    with pytest.raises(
        ConfigError, match=rf"driven by process {other.pid} on .*`kill {other.pid}`"
    ):
        stop_run(str(tmp_path / "birds"), no_jobs)
    assert other.poll() is None


def test_a_driver_of_another_machine_is_named(start, tmp_path):
    put(tmp_path / "birds")
    with pytest.raises(ConfigError, match=r"driven by process 7 on elsewhere, which cannot be"):
        stop_run(str(tmp_path / "birds"), no_jobs)


def test_what_has_ended_is_not_stopped(start, tmp_path):
    put(tmp_path / "birds", ended={"at": time.time(), "how": "failed", "code": 3})
    assert stop_run(str(tmp_path / "birds"), no_jobs).endswith("is not at work")


def test_going_on_takes_the_runs_own_configuration_where_it_lies_now(tmp_path):
    root = tmp_path / "moved"
    root.mkdir()
    put(root, until="search")
    (root / "config.yaml").write_text("storage_path: /before\nname: birds\nseed: 7\n")
    config = configuration_of(str(root), ["search.trials=3"])
    assert (config.storage_path, config.name) == (str(tmp_path), "moved")
    assert (config.seed, config.search.trials) == (7, 3)
    assert until_of(str(root)) == "search"
    for override in ("name=other", "storage_path=/elsewhere"):
        with pytest.raises(ConfigError, match=r"is another run\. Fix: leave it out, or start"):
            configuration_of(str(root), [override])
    with pytest.raises(ConfigError, match=r"no run, for there is no config\.yaml"):
        configuration_of(str(tmp_path))
