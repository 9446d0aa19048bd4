"""A command that is told to stop has ended seconds later, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from raysynth.cluster.lease import LEASE
from raysynth.cluster.stopping import LEAVE_SECONDS, in_time
from tests.cluster.signals import at_work, ends_soon
from tests.test_pipeline import MINIATURE

STUCK = """
import ctypes, subprocess, sys
import psutil
from raysynth.cluster.local import held_signals
from raysynth.cluster.stopping import in_time

with in_time() as leave, held_signals():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    while True:
        ctypes.CDLL(None).poll(None, 0, 600_000)  # in C, as Ray's core: no handler of Python's runs
"""
WAITS = """
import threading, time
from raysynth.cluster.stopping import in_time

with in_time() as leave:
    threading.Thread(target=time.sleep, args=(600,)).start()  # Python would wait for it
    print("waits", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        leave(130)
"""

HOLDS = """
import ctypes, time
import psutil
from raysynth.cluster.lease import Lease
from raysynth.cluster.local import held_signals
from raysynth.cluster.stopping import at_the_end, in_time
from raysynth.progress import Progress

with in_time() as leave, held_signals():
    Lease({root!r}).take(Progress())
    at_the_end.append(lambda why: time.sleep(600))
    print("held", flush=True)
    while True:
        ctypes.CDLL(None).poll(None, 0, 600_000)
"""
OWN = f"""
import time
from raysynth.cluster.stopping import in_time, interrupt_self

print("begins", flush=True)
with in_time() as leave:
    try:
        interrupt_self()
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep({LEAVE_SECONDS + 1})
        leave(3)
"""


def stopped(script: str, number: int) -> tuple[int, float, str, str]:
    """Exit code, seconds to the end, standard output and error of a signalled script."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stdout.readline()
        before = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, time.monotonic() - before, first, errors


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stuck_is_left_with_its_processes(number):
    code, seconds, first, errors = stopped(STUCK, number)
    assert code == 128 + number
    assert errors == "raysynth: stopped. The same command goes on where it was\n"
    assert LEAVE_SECONDS <= seconds < 20  # 2.6 s; the machine of a test may be busy
    deadline = time.monotonic() + 20
    while runs(int(first)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(int(first))


def test_a_stop_by_force_gives_the_lease_back(tmp_path):
    """Another machine would wait for it; a storage that does not answer delays nothing."""
    code, seconds, first, _ = stopped(HOLDS.format(root=str(tmp_path)), signal.SIGTERM)
    assert (code, first) == (128 + signal.SIGTERM, "held\n")
    assert seconds < 20 and not (tmp_path / LEASE).exists()


def test_a_run_that_ends_itself_is_given_time():
    done = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stderr == ""


def test_who_leaves_after_a_signal_waits_for_no_thread():
    code, seconds, _, errors = stopped(WAITS, signal.SIGINT)
    assert code == 130 and seconds < 20
    assert "Traceback" not in errors


def ray_starts(process: psutil.Process, said: str) -> bool:
    """Whether Ray's first daemon is there."""
    return any(each.name() == "gcs_server" for each in process.children(recursive=True))


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (ray_starts, signal.SIGINT),
        (lambda process, said: "✓ ingest" in said, signal.SIGTERM),
    ],
    ids=["Ray starts", "ingest is made"],
)
def test_a_run_ends_soon_after_a_signal_and_leaves_nothing(tmp_path, moment, number):
    given = ["run", f"storage_path={tmp_path}", *MINIATURE, "finetune.steps=2000"]
    ends_soon(given, tmp_path / "out", moment, number)


@pytest.mark.slow
@pytest.mark.cluster
def test_generation_and_search_end_soon_after_a_signal(tmp_path):
    """One run, the same command for each: it goes on where it was."""
    given = ["run", f"storage_path={tmp_path}", *MINIATURE, "references.names=[]"]
    given += ["synthesis.images_per_group=400", "search.trials=40", "search.steps=[300, 3000]"]
    for stage, done, number in (
        ("synthesis", 1, signal.SIGTERM),
        ("synthesis", 1, signal.SIGINT),
        ("search", 0, signal.SIGTERM),
        ("search", 0, signal.SIGINT),
    ):
        met = at_work(tmp_path / "mini", stage, done)
        ends_soon(given, tmp_path / f"{stage}-{number}", met, number)


def test_without_a_signal_nothing_is_left_behind():
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with pytest.raises(SystemExit) as left, in_time() as leave:
        leave(3)
    assert left.value.code == 3
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == files and threading.active_count() == threads
