"""The status of a run: written while it is at work, read from its folder, never in its way."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from rich.console import Console

import raysynth.jobs.heartbeat
from raysynth.cli import main
from raysynth.cluster.note import born, machine
from raysynth.cluster.stopping import at_the_end
from raysynth.errors import ConfigError, StageError, StorageError
from raysynth.jobs.folder import root_of
from raysynth.jobs.heartbeat import KILLED, STATUS, Heartbeat
from raysynth.jobs.status import in_words, read_status
from raysynth.progress import Progress


@pytest.fixture
def progress() -> Progress:
    return Progress(Console(file=io.StringIO(), force_terminal=False))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(raysynth.jobs.heartbeat, "DISK_SECONDS", 0.05)


def record(root) -> dict:
    return json.loads((root / STATUS).read_text())


def wait_for(root, key: str, value: object) -> dict:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (root / STATUS).exists() and (found := record(root))[key] == value:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{key} never became {value}")


def put(root, **values: object) -> None:
    """A status file of another driver."""
    now = time.time()
    whole = {"attempts": 1, "first_started": now, "started": now, "updated": now, "every": 5.0}
    whole |= {"until": None, "stages": [], "made": [], "now": [], "ended": None}
    whole |= {"last_error": None, "unwritten": 0}
    whole["driver"] = {"host": "elsewhere", "pid": 7, "born": now, "job": None}
    root.mkdir(parents=True, exist_ok=True)
    (root / STATUS).write_text(json.dumps(whole | values))


def test_a_run_at_work_says_what_it_does_and_how_fast(tmp_path, progress):
    with Heartbeat(str(tmp_path), progress, "synthesis"):
        progress.stages, progress.made = ["ingest", "finetune", "synthesis"], ["ingest"]
        progress.stage("finetune")
        progress.update("4 adapters, steps", 100, 400)
        wait_for(tmp_path, "made", ["ingest"])
        other = progress.beside()
        other.stage("references")
        progress.update("4 adapters, steps", 200, 400)
        time.sleep(0.5)
        status = read_status(str(tmp_path))
        found = record(tmp_path)
    assert status.state == "running" and status.age < 30
    own, beside = found["now"]
    assert (own["stage"], own["done"], own["total"]) == ("finetune", 200, 400)
    assert own["left"] == pytest.approx(200 / own["rate"])
    assert beside["stage"] == "references" and beside["rate"] is None
    pid, start = born(os.getpid())
    mine = {"host": socket.gethostname(), "machine": machine(), "pid": pid, "born": start}
    assert found["driver"] == mine | {"job": None} and found["attempts"] == 1
    told = "\n".join(in_words(status))
    assert "finetune: 4 adapters, steps 200 of 400 (50 %)" in told
    assert "to come   finetune, synthesis" in told
    after = read_status(str(tmp_path))
    assert after.state == "finished" and "finished up to synthesis" in "\n".join(in_words(after))


def test_attempts_are_counted_and_the_last_error_stays(tmp_path, progress):
    for error in (StageError("4 adapters failed. Fix: run again"), KeyboardInterrupt(), None):
        expected = pytest.raises(type(error)) if error else nullcontext()
        with expected, Heartbeat(str(tmp_path), progress):
            if error:
                raise error
    found = record(tmp_path)
    assert found["attempts"] == 3 and found["ended"]["how"] == "finished"
    assert found["first_started"] < found["started"]
    last = found["last_error"]
    assert (last["attempt"], last["code"]) == (1, 3) and last["text"].startswith("4 adapters")
    assert "attempt 1: 4 adapters failed" in "\n".join(in_words(read_status(str(tmp_path))))


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("no"), 2), (ConnectionError("away"), 3), (RuntimeError("what"), 1)],
)
def test_an_end_has_the_code_of_its_error(tmp_path, progress, error, code):
    with pytest.raises(type(error)), Heartbeat(str(tmp_path), progress):
        raise error
    assert record(tmp_path)["ended"]["code"] == code
    status = read_status(str(tmp_path))
    assert status.state == "failed"
    assert ("raysynth resume" in in_words(status)[1]) == (code != 2)


@pytest.mark.parametrize(
    ("why", "how", "code"), [(StorageError("Ray has ended"), "failed", 3), (None, "stopped", None)]
)
def test_an_end_by_force_is_told_too(tmp_path, progress, why, how, code):
    before = [*at_the_end]
    with Heartbeat(str(tmp_path), progress):
        at_the_end[-1](why)
        ended = record(tmp_path)["ended"]
    assert (ended["how"], ended["code"]) == (how, code)
    assert at_the_end == before


def test_a_killed_attempt_is_told_by_the_next(tmp_path, progress):
    put(tmp_path, attempts=4)
    with Heartbeat(str(tmp_path), progress):
        pass
    found = record(tmp_path)
    assert found["attempts"] == 5
    assert (found["last_error"]["attempt"], found["last_error"]["text"]) == (4, KILLED)


def test_what_cannot_be_written_is_counted_and_disturbs_nothing(tmp_path, progress):
    (tmp_path / STATUS).mkdir()  # a folder is in its place
    with Heartbeat(str(tmp_path), progress):
        time.sleep(0.5)
        (tmp_path / STATUS).rmdir()
        wait_for(tmp_path, "attempts", 1)
    assert record(tmp_path)["unwritten"] >= 2
    assert [path.name for path in tmp_path.iterdir()] == [STATUS]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attempts": "x"}', "\x00"])
def test_a_broken_record_is_no_obstacle(tmp_path, progress, content):
    (tmp_path / STATUS).write_text(content)
    (tmp_path / "config.yaml").write_text("name: a")
    assert in_words(read_status(str(tmp_path)))
    with Heartbeat(str(tmp_path), progress):
        pass
    assert record(tmp_path)["attempts"] == 1


def test_signs_of_life_are_read_honestly(tmp_path):
    put(tmp_path, updated=time.time() - 12 * 60)
    silent = read_status(str(tmp_path))
    assert silent.state == "silent"
    assert "no sign of life for 12 min" in in_words(silent)[1]
    put(tmp_path, updated=time.time() - 50)
    assert read_status(str(tmp_path)).state == "running"
    put(tmp_path, updated=time.time() - 80, every=15.0)  # an object store's are rarer
    assert read_status(str(tmp_path)).state == "running"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    pid, start = born(ended.pid)
    ended.wait()
    driver = {"host": socket.gethostname(), "pid": pid, "born": start, "job": "b-1"}
    for here in ({}, {"machine": machine()}):
        put(tmp_path, driver=driver | here)
        gone = read_status(str(tmp_path))
        assert gone.state == "gone" and "its process is gone" in in_words(gone)[1]
    put(tmp_path, driver=driver | {"machine": "a container whose host has the same name"})
    assert read_status(str(tmp_path)).state == "running"


def test_what_was_forgotten_after_the_end_is_to_come(tmp_path):
    names = ["ingest", "synthesis"]
    put(tmp_path, stages=names, made=names, ended={"at": 1.0, "how": "finished", "code": None})
    for made, left in ((names, ""), (names[:1], "to come   synthesis")):
        stages = {name: {"seconds": 1.0} for name in made}
        (tmp_path / "manifest.json").write_text(json.dumps({"stages": stages}))
        told = "\n".join(in_words(read_status(str(tmp_path))))
        assert left in told and bool(left) == ("to come" in told)


def test_a_run_without_a_status_is_known_by_its_manifest(tmp_path):
    stages = {"ingest": {"seconds": 3.25, "rows": 56}, "clustering": {"seconds": 150.0}}
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": stages}))
    status = read_status(str(tmp_path))
    assert status.state == "unknown" and status.age is None
    assert "made      ingest 3.2 s, clustering 2 min" in in_words(status)


def test_neither_ray_nor_torch_is_needed(tmp_path):
    put(tmp_path)
    code = (
        "import sys; from raysynth.jobs.look import look; look(sys.argv[1], as_json=False);"
        "print([m for m in ('ray', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_no_run_is_refused_with_the_runs_that_are_there(tmp_path):
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no run; below it are the runs birds; .*Fix: name"):
        read_status(str(tmp_path))
    with pytest.raises(ConfigError, match=r"no run; expected a folder with config.yaml"):
        read_status(f"{tmp_path}/none")


def test_a_run_is_named_by_folder_configuration_or_settings(tmp_path):
    file = tmp_path / "birds.yaml"
    file.write_text(f"storage_path: {tmp_path}/runs\nname: birds\n")
    (tmp_path / "seed=1").mkdir()
    assert root_of([str(file)]) == f"{tmp_path}/runs/birds"
    assert root_of([str(file), "name=b"]) == f"{tmp_path}/runs/b"
    assert root_of([f"storage_path={tmp_path}", "name=c"]) == f"{tmp_path}/c"
    assert root_of([f"{tmp_path}/seed=1/"]) == f"{tmp_path}/seed=1"
    assert root_of(["s3://bucket/runs/seed=1/"]) == "s3://bucket/runs/seed=1"
    with pytest.raises(ConfigError, match="birds: no such folder or file"):
        root_of(["birds"])
    with pytest.raises(ConfigError, match="named already"):
        root_of([str(tmp_path), "name=b"])


def test_the_command_prints_text_json_and_what_changes(tmp_path, capsys, monkeypatch):
    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["raysynth", "status", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    put(tmp_path, ended={"at": time.time(), "how": "stopped", "code": None})
    assert "stopped" in said(str(tmp_path))
    assert json.loads(said(str(tmp_path), "--json"))["state"] == "stopped"
    assert said(str(tmp_path), "--watch").count("state") == 1


def test_an_object_store_is_written_to_rarely_and_read_from(s3, progress, monkeypatch):
    """First and last: two writes for a run of a moment."""
    written = []
    real = raysynth.jobs.heartbeat.write_atomic
    counted = lambda *given, **named: written.append(given[0]) or real(*given, **named)  # noqa: E731
    monkeypatch.setattr(raysynth.jobs.heartbeat, "write_atomic", counted)
    root = f"{s3}/birds"
    with Heartbeat(root, progress):
        progress.stage("ingest")
        time.sleep(3.0)
        assert read_status(root).record["every"] == 15.0
    status = read_status(root)
    assert status.state == "finished" and status.record["now"][0]["stage"] == "ingest"
    assert written == [f"{root}/{STATUS}"] * 2


def shared(root, name: str, **values: object) -> None:
    """A cell's run, whose stages lie elsewhere."""
    put(root / "runs" / name, **values)
    (root / "runs" / name / "manifest.json").write_text('{"stages": {}, "shared": "/stages"}')


def test_a_benchmark_says_which_cells_are_done_at_work_and_failed(tmp_path):
    now = {"stage": "synthesis", "what": "images generated", "done": 120, "total": 400}
    shared(tmp_path, "shared-0.8-1", now=[now | {"rate": 2.0, "left": 140.0}])
    shared(tmp_path, "shared-0.8-0", ended={"at": 1.0, "how": "finished", "code": None})
    cells = {"total": 12, "done": 5, "waiting": 5, "left": 2400.0}
    cells |= {"at_work": ["shared-0.8-1", "lora-0.8-1"], "failed": {"none-0.8-0": "one\ntwo"}}
    put(tmp_path, cells=cells)
    lines = in_words(read_status(str(tmp_path)))
    assert lines[2:5] == [
        "cells     5 of 12 done (42 %), 2 at work, 5 to come, 1 failed; about 40 min left",
        "at work   shared-0.8-1: synthesis: images generated 120 of 400 (30 %), 2/s, about 2 min "
        "left",
        "failed    none-0.8-0: one\n          two",
    ]
    assert not [line for line in lines if line.startswith(("made", "to come"))]
    whole = read_status(str(tmp_path)).to_dict()
    assert whole["cells"] == cells and whole["cell_runs"]["shared-0.8-1"]["now"][0]["done"] == 120
    put(tmp_path, cells=cells, ended={"at": time.time(), "how": "stopped", "code": None})
    lines = in_words(read_status(str(tmp_path)))
    assert lines[1].endswith("ago; the same command goes on")
    assert lines[2] == "cells     5 of 12 done (42 %), 7 to come, 1 failed"


def test_a_benchmark_without_a_status_is_known_by_its_cells(tmp_path):
    shared(tmp_path, "a-0.8-0", ended={"at": 1.0, "how": "finished", "code": None})
    shared(tmp_path, "a-0.8-1", updated=time.time() - 1000)
    put(tmp_path / "runs" / "plain")  # a run that is nobody's cell
    lines = in_words(read_status(str(tmp_path)))
    assert lines[2] == "cells     1 finished, 1 silent; how many are to come is not known"
