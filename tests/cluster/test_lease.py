"""A run's lease: one driver anywhere, whatever the clocks say; the dead are followed at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raysynth.cluster import lease as leases
from raysynth.cluster import session as sessions
from raysynth.cluster.lease import LEASE, Lease
from raysynth.cluster.session import Session
from raysynth.config.files import load_config
from raysynth.errors import ConfigError, StorageError
from raysynth.pipeline import open_run
from raysynth.progress import Progress
from raysynth.storage.files import create, read_now, remove, sizes_below, write_atomic


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def began(quick) -> Iterator[list[Lease]]:
    """Leases that a test has taken: their heartbeats end with it."""
    taken: list[Lease] = []
    yield taken
    for each in taken:
        each.release()


def taken(root: str, began: list[Lease], *, elsewhere: bool = False) -> Lease:
    lease = Lease(root)
    if elsewhere:
        lease._machine = "another machine's"
    began.append(lease)
    lease.take(Progress())
    return lease


def read_lease(root: str) -> dict | None:
    """The lease of a run's folder; None: nobody drives it."""
    return read_now(f"{root}/{LEASE}")


def test_one_driver_holds_a_run_and_leaves_nothing(place, began):
    first = taken(f"{place}/t", began)
    with pytest.raises(ConfigError, match=rf"process {os.getpid()} on this machine since 20.*Fix:"):
        taken(f"{place}/t", began)
    assert read_lease(f"{place}/t")["pid"] == os.getpid()
    taken(f"{place}/another", began)
    first.release()
    first.release()
    assert read_lease(f"{place}/t") is None and sizes_below(f"{place}/t") == {}
    taken(f"{place}/t", began).check()


def test_a_driver_elsewhere_is_known_by_its_beats(place, began, capsys):
    """Its times say nothing: they are of another clock."""
    other = taken(f"{place}/t", began, elsewhere=True)
    other._since = "1970-01-01 00:00:00 UTC"
    with pytest.raises(ConfigError, match=r"is being run by process .* Fix: wait for it"):
        taken(f"{place}/t", began)
    assert "if it gives no sign of life for 2 s" in capsys.readouterr().err
    other.check()


def test_a_silent_driver_elsewhere_is_followed_and_stops_when_it_wakes(place, began, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 3.5)  # as of a machine that slept
    silent = taken(f"{place}/t", began, elsewhere=True)
    start = time.monotonic()
    follower = taken(f"{place}/t", began)
    assert 2.0 < time.monotonic() - start < 3.5
    deadline = time.monotonic() + 20
    while not silent.lost and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(StorageError, match=r"was taken over by process .*Fix:"):
        silent.check()
    follower.check()
    silent.release()
    assert read_lease(f"{place}/t")["session"] == follower._session


KILLED = """
import sys, time
from raysynth.cluster.lease import Lease
from raysynth.progress import Progress
Lease(sys.argv[1]).take(Progress())
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_driver_of_this_machine_is_followed_at_once(tmp_path, began, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {driver.pid} on this machine"):
            taken(str(tmp_path), began)
        driver.send_signal(signal.SIGKILL)
    start = time.monotonic()
    taken(str(tmp_path), began)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"session": 1}', b"\xff", b'{"pid": -1}'])
def test_a_lease_that_cannot_be_read_runs_out(tmp_path, began, content):
    (tmp_path / LEASE).write_bytes(content)
    start = time.monotonic()
    taken(str(tmp_path), began)
    assert 2.0 < time.monotonic() - start < 10


def test_of_several_that_make_a_file_at_once_one_succeeds(place):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create(f"{place}/x", f"{n}".encode()), range(8)))
    assert sum(made) == 1 and sizes_below(place) == {"x": 1}


def other_drivers(path: str) -> None:
    """Another driver's lease in the place of the one that is there."""
    lease = json.loads(Path(path).read_text())
    write_atomic(path, json.dumps(lease | {"session": "x", "machine": "y", "host": "z"}).encode())


def test_a_driver_whose_run_was_taken_over_stops(tmp_path, quick, monkeypatch, capfd):
    """In the midst of its work, with no word of Ctrl-C; and a stage is not published."""
    monkeypatch.setattr(sessions, "_in_charge", lambda: True)
    with (
        pytest.raises(StorageError, match=r"taken over by process \d+ on z since"),
        Session(load_config(None, []), str(tmp_path)) as session,
    ):
        session.hold(Progress())
        other_drivers(f"{tmp_path}/{LEASE}")
        time.sleep(30)
    assert "stopped" not in capfd.readouterr().err
    assert read_lease(str(tmp_path))["host"] == "z"


def test_what_a_driver_made_after_it_lost_its_run_is_not_published(tmp_path, quick, monkeypatch):
    """In a worker, where SIGINT is Ray's."""
    monkeypatch.setattr(sessions, "_in_charge", lambda: False)
    config = load_config(None, [f"storage_path={tmp_path}", "name=t"])
    session = Session(config, f"{tmp_path}/t")
    run = open_run(config, None, lambda: session.hold(Progress()))
    run.held = session.check

    def build(work: str) -> dict:
        other_drivers(f"{tmp_path}/t/{LEASE}")
        deadline = time.monotonic() + 20
        while not session._lease.lost and time.monotonic() < deadline:
            time.sleep(0.1)
        return {}

    with pytest.raises(StorageError, match="taken over"):
        run.stage("ingest", {}, build)
    assert not (tmp_path / "t/real").exists() and run.manifest() == {"stages": {}}
    session._lease.release()


def test_a_refused_driver_leaves_the_runs_configuration_as_it_is(tmp_path, began):
    config = load_config(None, [f"storage_path={tmp_path}", "name=t"])
    open_run(config)
    before = (tmp_path / "t/config.yaml").read_text()
    taken(f"{tmp_path}/t", began)
    session = Session(config, f"{tmp_path}/t")
    other = config.model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match="is being run by"):
        open_run(other, None, lambda: session.hold(Progress()))
    assert (tmp_path / "t/config.yaml").read_text() == before
    remove(f"{tmp_path}/t/{LEASE}")
