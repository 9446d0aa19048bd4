"""Boards of a run are started, answer, show its numbers, and end with the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from raysynth.config.files import load_config
from raysynth.dashboards.serve import _host, fetch, serve
from raysynth.errors import ConfigError
from raysynth.storage.files import write_atomic
from raysynth.trackers.several import open_trackers
from tests.report.made_run import make_run


@pytest.fixture
def run(tmp_path):
    """A finished run with a trial in its event files and a study."""
    url = f"sqlite:///{tmp_path}/trials.db"
    config, run = make_run(tmp_path, "name=red", f"search.storage={url}")
    with open_trackers(config.trackers, run.root, "red") as trackers:
        trackers.metrics("search/trial-01", 10, {"WGA": 0.75})
    return run


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_boards_answer_until_the_command_is_stopped(run, number):
    pytest.importorskip("tensorboard")
    command = [sys.executable, "-m", "raysynth", "dashboards", run.root, "--port", "16106"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        told = {line.split()[0]: line.split()[1] for line in lines if "http" in line}
        runs = f"{told['TensorBoard']}data/plugin/scalars/tags"
        until = time.monotonic() + 60
        while "search/trial-01" not in (found := json.loads(get(runs))):
            assert time.monotonic() < until, lines
            time.sleep(0.5)
        assert "WGA" in found["search/trial-01"]
        if "Optuna" in told:
            assert "optuna" in get(told["Optuna"]).lower()
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert children and not psutil.wait_procs(children, timeout=10)[1], "no board is left"
    assert "Traceback" not in errors
    assert any(line.startswith("Ray") for line in lines)
    assert any(line.startswith("Report") and "none yet" in line for line in lines)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run"):
        serve(str(tmp_path), 6006)


def test_event_files_on_an_object_store_are_fetched_as_they_grow(s3, tmp_path):
    sizes: dict[str, int] = {}
    remote = f"{s3}/red/trackers/tensorboard"
    write_atomic(f"{remote}/search/trial-01/events.1", b"one")
    assert fetch(remote, str(tmp_path), sizes) == ["search/trial-01/events.1"]
    assert fetch(remote, str(tmp_path), sizes) == []
    write_atomic(f"{remote}/search/trial-01/events.1", b"one, two")
    assert fetch(remote, str(tmp_path), sizes) == ["search/trial-01/events.1"]
    assert (tmp_path / "search/trial-01/events.1").read_text() == "one, two"


@pytest.mark.parametrize(
    ("address", "host"),
    [("auto", "127.0.0.1"), ("10.0.0.2:6379", "10.0.0.2"), ("ray://head:10001", "head")],
)
def test_the_head_of_a_cluster_has_rays_dashboard(address, host):
    assert _host(address) == host


def test_the_default_has_event_files():
    assert [each.name for each in load_config(None, []).trackers] == ["tensorboard"]
