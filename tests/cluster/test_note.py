"""The session note: one driver at a time; nothing that others could have written is believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from raysynth.cluster.note import SessionNote, is_ray_command
from raysynth.errors import ConfigError

RUN = "/runs/quickstart"
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "cache" / "raysynth"


@contextmanager
def process(command: list[str] = SLEEP) -> Iterator[subprocess.Popen]:
    """A process that runs its program: just after a start it has no command line yet."""
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while not psutil.Process(started.pid).cmdline():
            time.sleep(0.01)
        yield started
    finally:
        started.kill()
        started.wait()


def rays(tmp_path: Path) -> list[str]:
    """A process of ours whose command line is one of Ray's."""
    program = tmp_path / "ray" / "_private" / "log_monitor.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("import time; time.sleep(60)")
    return [sys.executable, "-u", str(program)]


def pair(started: subprocess.Popen) -> list:
    return [started.pid, psutil.Process(started.pid).create_time()]


def note_of(folder: Path) -> Path:
    """Where the note of RUN lies."""
    note = SessionNote(RUN)
    note.take()
    (path,) = folder.glob("*.json")
    note.release()
    return path


def test_the_folder_and_its_files_are_ours_alone(folder):
    note = SessionNote(RUN)
    note.take()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".json", ".lock"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    note.release()
    note.release()
    assert not list(folder.iterdir())


def test_a_second_driver_is_refused_until_the_first_ends(folder):
    code = (
        "import sys, time\nfrom raysynth.cluster.note import SessionNote\n"
        f"SessionNote({RUN!r}).take()\nprint('taken', flush=True)\ntime.sleep(60)"
    )
    with process([sys.executable, "-c", code]) as other:
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(ConfigError, match=rf"{RUN} is being run by process {other.pid} .*Fix:"):
            SessionNote(RUN).take()
        SessionNote("/runs/another").take()
        note = next(path for path in folder.glob("*.json") if str(other.pid) in path.read_text())
        note.write_text("")
        with pytest.raises(ConfigError, match="is being run by another process"):
            SessionNote(RUN).take()
        other.send_signal(signal.SIGKILL)
        other.wait()
        mine = SessionNote(RUN)
        mine.take()
        mine.release()


def test_a_dead_drivers_ray_is_ended(folder, tmp_path):
    path = note_of(folder)
    with process(rays(tmp_path)) as left:
        path.write_text(json.dumps({"driver": [999_999, 0.0], "ray": [pair(left)]}))
        note = SessionNote(RUN)
        note.take()
        assert left.wait(timeout=60) == -signal.SIGTERM
        assert json.loads(path.read_text()) == {"driver": pair_of_this(), "ray": []}
        note.release()


def test_processes_that_are_not_rays_or_not_the_same_are_left_alone(folder, tmp_path):
    path = note_of(folder)
    with process() as mine, process(rays(tmp_path)) as later:
        pid, start = pair(later)
        path.write_text(json.dumps({"driver": [999_999, 0], "ray": [pair(mine), [pid, start - 9]]}))
        note = SessionNote(RUN)
        note.take()
        note.release()
        time.sleep(0.2)
        assert mine.poll() is None and later.poll() is None


BROKEN = {
    "empty": b"",
    "cut": b'{"driver": [1, 2.0], "ra',
    "null": b"null",
    "number": b"3",
    "list": b"[]",
    "no keys": b"{}",
    "not text": b"\xff\xfe\x00",
    "a word as driver": b'{"driver": "me", "ray": "all"}',
    "words as pids": b'{"driver": ["a", "b"], "ray": [["a", "b"], [true, 0]]}',
    "odd pids": b'{"driver": [-1, 0], "ray": [[0, 0], [1, 0], [1e3, 0], [-1, 0]]}',
    "huge": b'{"driver": [%d, 0], "ray": [[%d, 0]]}' % (10**30, 10**30),
    "no numbers": b'{"driver": [99999, NaN], "ray": [[99999, Infinity], [99999, 1e400]]}',
    "nested": b"[" * 100_000,
    "numbers, of thousands of digits": b'{"driver": [2, %s]}' % (b"9" * 5_000),
    "short pairs": b'{"driver": [], "ray": [[], [1], [1, 2, 3], {}, null]}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_note_is_none(folder, content):
    path = note_of(folder)
    path.write_bytes(content)
    note = SessionNote(RUN)
    note.take()
    assert json.loads(path.read_text())["driver"] == pair_of_this()
    note.release()
    assert not list(folder.iterdir())


def test_what_lies_in_the_notes_place_is_no_reason_to_stop(folder):
    path = note_of(folder)
    os.mkfifo(path)
    note_of(folder)
    (path / "x").mkdir(parents=True)
    note = SessionNote(RUN)
    note.take()
    note.release()


def test_no_link_is_followed(folder, tmp_path):
    path = note_of(folder)
    precious, missing = tmp_path / "precious", tmp_path / "missing"
    precious.write_text("mine")
    for target in (precious, missing):
        for name in (path, path.with_suffix(".tmp")):
            name.symlink_to(target)
        note = SessionNote(RUN)
        note.take()
        assert not path.is_symlink()
        note.release()
    path.with_suffix(".lock").symlink_to(missing)
    SessionNote(RUN).take()
    assert precious.read_text() == "mine" and not missing.exists()


@pytest.mark.parametrize("odd", ["open", "link", "file", "another's"])
def test_a_folder_that_is_not_ours_alone_is_not_used(folder, monkeypatch, tmp_path, capsys, odd):
    """Another user's: note of a process of ours, which must not be ended."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    path = note_of(folder)
    if odd == "another's" and os.getuid():
        pytest.skip("only root makes folders of others")
    with process(rays(tmp_path)) as mine:
        path.write_text(json.dumps({"driver": [999_999, 0], "ray": [pair(mine)]}))
        if odd == "open":
            folder.chmod(0o755)
        elif odd == "another's":
            os.chown(folder, 65534, 65534)
        else:
            folder.rename(tmp_path / "elsewhere")
            folder.symlink_to(tmp_path / "elsewhere") if odd == "link" else folder.touch()
        SessionNote(RUN).take()
        assert "leaves behind if it is killed will not be ended" in capsys.readouterr().err
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        note = SessionNote(RUN)
        note.take()
        assert len(list((runtime / "raysynth").iterdir())) == 2 and not capsys.readouterr().err
        note.release()
        assert mine.poll() is None


def test_a_folder_in_the_temporary_folder_means_nothing(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / f"raysynth-{os.getuid()}").write_text("a plain file")
    note_of(folder)


@pytest.mark.parametrize(
    ("command", "rays"),
    [
        (["/x/ray/core/src/ray/raylet/raylet", "--head"], True),
        (["/x/ray/core/src/ray/gcs/gcs_server"], True),
        (["/usr/bin/python3.11", "-u", "/x/ray/_private/log_monitor.py"], True),
        (["python", "/x/ray/dashboard/dashboard.py"], True),
        (["ray::DashboardAgent", "", ""], True),
        (["ray::IDLE"], True),
        (["vim", "/x/ray/_private/log_monitor.py"], False),
        (["python", "train.py", "/x/ray/_private/log_monitor.py"], False),
        (["sleep", "60"], False),
        ([], False),
    ],
)
def test_a_command_line_says_whether_it_is_rays(command, rays):
    assert is_ray_command(command) is rays


def pair_of_this() -> list:
    me = psutil.Process()
    return [me.pid, me.create_time()]
