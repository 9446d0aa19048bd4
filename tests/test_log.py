"""A run's log: what was said, with the time; on a disk, on an object store, as JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import time
import warnings
from pathlib import Path

import fsspec
import pytest
from rich.console import Console

import raysynth.log
import raysynth.progress
from raysynth.errors import ConfigError, StageError
from raysynth.json_lines import to_stderr
from raysynth.log import ATTEMPTS, FOLDER, Log, of_libraries
from raysynth.progress import Event, Progress


def lines_of(root: Path) -> list[str]:
    return [
        line for file in sorted((root / FOLDER).iterdir()) for line in file.read_text().splitlines()
    ]


def told(root: str, log: Log) -> Progress:
    progress = Progress(Console(file=io.StringIO(), force_terminal=False))
    progress.log = log
    return progress


def test_what_the_display_says_is_kept_with_time_level_and_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(raysynth.progress, "LOGGED_SECONDS", 0.1)
    with Log(str(tmp_path), "birds") as log, told(str(tmp_path), log) as progress:
        progress.stage("finetune")
        progress.update("steps", 60, 120)
        progress.say("  pack-0 goes on", level="warning", attempt=2)
        time.sleep(1.5)
    lines = lines_of(tmp_path)
    time_of_day = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(time_of_day + r" warning  finetune +pack-0 goes on  attempt=2", lines[2])
    beats = [line for line in lines if " progress " in line]
    assert beats and "steps  done=60" in beats[0] and "total=120" in beats[0]
    assert "attempt 1" in lines[0] and lines[-1].endswith("the run is done")


def test_every_start_is_an_attempt_and_old_ones_go(tmp_path):
    for _ in range(ATTEMPTS + 2):
        with Log(str(tmp_path), "birds") as log:
            pass
    assert log.attempt == ATTEMPTS + 2
    names = sorted(file.name for file in (tmp_path / FOLDER).iterdir())
    assert [int(name[:4]) for name in names] == list(range(3, ATTEMPTS + 3))


def test_a_part_that_is_large_is_followed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(raysynth.log, "PART_BYTES", 500)
    monkeypatch.setattr(raysynth.log, "DISK_SECONDS", 0.01)
    with Log(str(tmp_path), "birds") as log:
        for number in range(20):
            log(Event("ingest", f"line {number:02d} {'x' * 60}"))
            time.sleep(0.03)
    files = sorted((tmp_path / FOLDER).iterdir())
    assert len(files) > 2 and all(file.stat().st_size < 1500 for file in files)
    assert [line[-63:-61] for line in lines_of(tmp_path)[1:-1]] == [f"{n:02d}" for n in range(20)]


def test_of_many_parts_the_newest_are_kept(tmp_path, monkeypatch):
    for name, value in {"PART_BYTES": 200, "DISK_SECONDS": 0.01, "PARTS": 3}.items():
        monkeypatch.setattr(raysynth.log, name, value)
    with Log(str(tmp_path), "birds") as log:
        for number in range(12):
            log(Event("ingest", f"line {number} {'x' * 200}"))
            time.sleep(0.05)
    assert len(list((tmp_path / FOLDER).iterdir())) <= 4
    assert "line 11" in "".join(lines_of(tmp_path)) and "line 1 " not in "".join(lines_of(tmp_path))


def test_an_object_store_gets_whole_parts_and_few_requests(monkeypatch):
    puts = []
    real = raysynth.log.write_atomic
    monkeypatch.setattr(
        raysynth.log, "write_atomic", lambda *given, **named: puts.append(given) or real(*given)
    )
    monkeypatch.setattr(raysynth.log, "DISK_SECONDS", 0.05)
    with Log("memory://watched/run", "run") as log:
        for number in range(100):
            log(Event("synthesis", f"line {number}"))
            time.sleep(0.005)
    (path,) = fsspec.filesystem("memory").find("/watched/run/log")
    text = fsspec.filesystem("memory").cat_file(path).decode()
    assert [f"line {n}" in text for n in range(100)] == [True] * 100
    assert 2 <= len(puts) <= 4  # the first lines, the last ones


@pytest.mark.parametrize("fault", ["folder", "write"])
def test_a_log_that_cannot_be_written_disturbs_nothing(tmp_path, monkeypatch, fault):
    if fault == "folder":
        (tmp_path / FOLDER).write_text("a file is in its place")
    else:
        monkeypatch.setattr("raysynth.log.Log._flush", lambda self: 1 / 0)
    with Log(str(tmp_path), "birds") as log:
        log(Event("ingest", "said"))
    assert log.attempt == 1


def test_what_a_failed_write_had_is_in_the_next_one(tmp_path, monkeypatch):
    real, tries = raysynth.log.open_storage, []

    def away(path: str, **named: object) -> object:
        tries.append(path)
        if 2 <= len(tries) <= 3:
            raise ConnectionResetError
        return real(path, **named)

    monkeypatch.setattr(raysynth.log, "open_storage", away)
    monkeypatch.setattr(raysynth.log, "DISK_SECONDS", 0.05)
    with Log(str(tmp_path), "birds") as log:
        log(Event("ingest", "one"))
        time.sleep(0.5)
    found = [line.rpartition("  ")[2].strip() for line in lines_of(tmp_path)]
    assert len(tries) > 3 and found[1:] == ["one", "the run is done"]


def test_how_a_run_ends_and_what_libraries_warn_of_is_kept_and_no_secret(tmp_path):
    with (
        pytest.raises(StageError),
        pytest.warns(UserWarning) as shown,
        Log(str(tmp_path), "birds") as log,
        of_libraries(log),
    ):
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("slow", UserWarning, stacklevel=1)
        logging.getLogger("some.library").warning("careful with %s", "s3://KEY:SECRET@bucket/x")
        raise StageError("finetune: one failed.\nFix: run again")
    text = "\n".join(lines_of(tmp_path))
    assert text.count("UserWarning: slow (test_log.py, line ") == 1
    assert "some.library: careful with s3://***@bucket/x" in text and "SECRET" not in text
    assert r"error                   the run ends: finetune: one failed.\nFix: run again" in text
    assert len(shown) == 3  # as without a log
    before = len(lines_of(tmp_path))
    logging.getLogger("some.library").warning("after the run")
    assert len(lines_of(tmp_path)) == before


def test_lines_are_json_on_demand(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAYSYNTH_LOG", "json")
    with Log(str(tmp_path), "birds") as log, Progress() as progress:
        progress.log = log
        progress.stage("finetune")
        progress.say("  pack-0: lost", level="warning", adapter="0-1", step=60)
    to_stderr("stopped", "warning")
    out, errors = capsys.readouterr()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert out == "" and all(line["run"] == "birds" and line["attempt"] == 1 for line in lines)
    (lost,) = [line for line in lines if line["message"] == "pack-0: lost"]
    assert lost.pop("time").endswith("Z")
    assert lost == {
        **{"run": "birds", "attempt": 1, "stage": "finetune", "level": "warning"},
        **{"message": "pack-0: lost", "adapter": "0-1", "step": 60},
    }
    assert lines[-1]["message"] == "stopped" and lines[-1]["level"] == "warning"


def test_a_format_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("RAYSYNTH_LOG", "xml")
    with pytest.raises(ConfigError, match=r"RAYSYNTH_LOG: got 'xml', expected text or json. Fix"):
        Progress()
