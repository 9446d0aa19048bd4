"""Stages that begin before their turn: beside others, found by those who read them, never alone."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from raysynth import method, pipeline
from raysynth.ahead import Ahead
from raysynth.cluster.session import Session
from raysynth.errors import DataError, StageError
from raysynth.pipeline import run_pipeline
from raysynth.progress import Progress
from raysynth.stages.stage import Stage, Work
from raysynth.storage.files import write_atomic
from tests.test_pipeline import miniature

SECONDS = 20.0


def first(work: Work) -> dict[str, int]:
    return {"rows": 1}


def slow(work: Work) -> dict[str, int]:
    """Ends once the early stage has ended, which it can only see if that runs beside it."""
    _wait(Path(work.config.storage_path) / "ended")
    return {"rows": 2}


def early(work: Work) -> dict[str, int]:
    work.progress.update("counting", 1, 2)
    write_atomic(f"{work.folder}/counted", b"3")
    (Path(work.config.storage_path) / "ended").touch()
    return {"rows": 3}


def broken(work: Work) -> dict[str, int]:
    (Path(work.config.storage_path) / "ended").touch()
    raise DataError("the early one is broken. Fix: mend it")


def endless(work: Work) -> dict[str, int]:
    (Path(work.config.storage_path) / "ended").touch()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        work.progress.update("counting")
        time.sleep(0.05)
    (Path(work.config.storage_path) / "never").touch()
    return {"rows": 0}


def failing(work: Work) -> dict[str, int]:
    slow(work)
    raise StageError("the slow one failed. Fix: again")


def last(work: Work) -> dict[str, int]:
    assert Path(f"{work.path('early')}/counted").read_text() == "3"
    return {"rows": 4}


def _wait(file: Path) -> None:
    until = time.monotonic() + SECONDS
    while not file.exists():
        assert time.monotonic() < until, "nothing runs beside this stage"
        time.sleep(0.02)


@pytest.fixture
def made_of(monkeypatch):
    """A method of four stages, of which the second and the third may be other functions."""

    def make(second, third, *, spare: bool = True) -> None:
        def stage(name: str, build, reads: tuple[str, ...] = (), *, begins: bool = False) -> Stage:
            named = f"{__name__}:{build.__name__}"
            return Stage(name, name, named, reads, ray=False, early=begins)

        stages = (
            stage("ingest", first),
            stage("slow", second, ("ingest",)),
            stage("other", first, ("slow",)),
            stage("early", third, ("ingest",), begins=True),
            stage("last", last, ("early", "other")),
        )
        monkeypatch.setattr(method, "METHOD", stages)
        monkeypatch.setattr(Session, "spare", property(lambda _: spare))
        folders = {each.name: each.name for each in stages}
        for module in (method, pipeline):
            monkeypatch.setattr(module, "FOLDERS", folders)
        monkeypatch.setattr(pipeline, "WHOLE", replace(pipeline.WHOLE, folders=folders))

    return make


def test_an_early_stage_runs_beside_others_and_is_found_by_who_reads_it(tmp_path, made_of, capsys):
    made_of(slow, early)
    manifest = run_pipeline(miniature(tmp_path)).manifest()
    assert list(manifest["stages"]) == ["ingest", "slow", "other", "early", "last"]
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "✓" in line]
    assert said[0] == "ingest" and {*said[1:3]} == {"slow", "early"}  # one waits for the other
    before = {name: record["digest"] for name, record in manifest["stages"].items()}
    (tmp_path / "ended").unlink()
    again = run_pipeline(miniature(tmp_path)).manifest()  # all there: nobody waits for anything
    assert {name: record["digest"] for name, record in again["stages"].items()} == before


def test_where_no_core_is_spare_it_waits_for_its_turn(tmp_path, made_of, capsys):
    made_of(first, early, spare=False)
    run_pipeline(miniature(tmp_path))
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "✓" in line]
    assert said == ["ingest", "slow", "other", "early", "last"]


def test_its_error_ends_the_run_after_the_stage_at_work_which_is_kept(tmp_path, made_of):
    made_of(slow, broken)
    with pytest.raises(DataError, match="the early one is broken"):
        run_pipeline(miniature(tmp_path))
    assert {*os.listdir(tmp_path / "mini/.records")} == {"ingest.json", "slow.json"}


def test_it_ends_where_another_stage_fails(tmp_path, made_of):
    made_of(failing, endless)
    begun = time.monotonic()
    with pytest.raises(StageError, match="the slow one failed"):
        run_pipeline(miniature(tmp_path))
    assert time.monotonic() - begun < SECONDS / 2
    assert not (tmp_path / "never").exists()
    made_of(slow, early)
    assert "last" in run_pipeline(miniature(tmp_path)).manifest()["stages"]


def test_a_signal_while_a_stage_begins_is_a_signal_still(monkeypatch):
    """Its thread may not have begun: to wait for that would be a fault of ours."""

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Ahead(Progress()) as ahead:
        ahead.begin("references", lambda display: pytest.fail("it never began"))
