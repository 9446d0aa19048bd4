"""A local Ray is this machine's and this user's alone; signals wait while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from raysynth.cluster.local import FOLDER_BYTES, guard_token, held_signals, ray_folder


def test_no_server_of_a_local_ray_listens_beyond_this_machine(ray_local):
    """Two dozen sockets otherwise: the token is all that keeps the network out."""
    ray_local.get(ray_local.remote(lambda: 1).remote())
    found = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            found += [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
        except psutil.NoSuchProcess:
            continue
    assert len(found) > 5
    assert {ip.removeprefix("::ffff:") for ip in found} <= {"127.0.0.1", "::1"}


@pytest.fixture
def base(monkeypatch) -> Path:
    """A short one: pytest's is longer than a socket's path may be."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_rays_folder_lies_in_one_that_is_closed(base):
    folder = Path(ray_folder())
    assert folder.parent == base / f"raysynth-{os.getuid()}" and ray_folder() == str(folder)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    folder.parent.chmod(0o755)  # somebody may have put something there
    other = Path(ray_folder())
    assert other.parent != folder.parent and other.parent.parent == base
    assert other.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("odd", ["file", "link"])
def test_what_another_put_in_the_folders_place_is_not_used(base, odd):
    place = base / f"raysynth-{os.getuid()}"
    (base / "x").mkdir(mode=0o700)
    place.write_text("") if odd == "file" else place.symlink_to(base / "x")
    folder = Path(ray_folder())
    assert folder.parent.parent == base and folder.parent != place and not folder.is_symlink()
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_rays_folder_leaves_room_for_its_sockets(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("a" * FOLDER_BYTES)))
    socket = "session_2026-11-29_06-58-08_880123_4194304/sockets/plasma_store"
    assert len(f"{ray_folder()}/{socket}") <= 107


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_token_is_ours_alone(home):
    guard_token(make=False)
    file = home / ".ray" / "auth_token"
    assert not file.exists()
    guard_token(make=True)
    made = file.read_text()
    assert len(made) == 64 and file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)  # as Ray makes it
    guard_token(make=True)
    assert file.read_text() == made and file.stat().st_mode & 0o777 == 0o600


def test_a_tokens_link_is_not_followed(home):
    (home / "other").write_text("")
    (home / "other").chmod(0o644)
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").symlink_to(home / "other")
    guard_token(make=True)
    assert (home / "other").stat().st_mode & 0o777 == 0o644 and not (home / "other").read_text()


def test_a_ray_without_a_token_is_warned_of(home, monkeypatch, capsys):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    guard_token(make=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert "RAY_AUTH_MODE=disabled" in line and "Fix:" in line
    assert not (home / ".ray").exists()


def test_signals_wait_for_the_end_of_the_block():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ended = []
    with pytest.raises(KeyboardInterrupt), held_signals() as came:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert came == [signal.SIGINT, signal.SIGINT]
        ended.append(True)
        raise ValueError  # of less interest then
    assert ended
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with held_signals() as came:
        pass
    assert came == []


def test_an_ignored_signal_stays_ignored_and_other_threads_hold_none():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_signals():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere() -> None:
        with held_signals() as came:
            seen.append(came)

    seen: list[list[int]] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [[]]


JOINS = """
import os, socket
from raysynth.cluster import local as local_ray
os.environ.update(local_ray.LOCAL_ENVIRONMENT)
from ray._private import ray_constants
local_ray._listen(local=True)
first = ray_constants.ENABLE_RAY_CLUSTER
local_ray._listen(local=False)
print(first, ray_constants.ENABLE_RAY_CLUSTER, local_ray.LOOPBACK in os.environ)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray has loopback for its default")
def test_a_cluster_that_is_joined_after_a_local_ray_can_reach_this_machine():
    """As in a notebook."""
    done = subprocess.run([sys.executable, "-c", JOINS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
