"""What is asked of Ray is checked; a run has one driver."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from raysynth.cluster.asked import Asked
from raysynth.cluster.capacity import check_before_ray, check_cluster, check_reachable
from raysynth.cluster.local import LOCAL_STARTS
from raysynth.cluster.session import Session
from raysynth.cluster.settings import ResourcesConfig
from raysynth.config.files import load_config
from raysynth.errors import ConfigError, StageError


def test_more_cpus_than_this_machine_has_are_refused_before_ray_starts(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="asks for 4000 CPUs, this machine has"):
        check_before_ray(load_config(None, ["resources.workers=4000"]))
    with pytest.raises(ConfigError, match="GPUs, this machine has"):
        check_before_ray(load_config(None, ["resources.gpus_per_worker=64"]))


def test_what_is_asked_is_a_value_that_any_stage_can_give():
    """The room of the cluster knows no other's knobs, only the words for a message."""

    class Run:
        resources = ResourcesConfig()
        asked = (Asked(3, 2.0, 0.5, ("search.concurrent", "cpus", "gpus")),)

    check_cluster(Run(), {"CPU": 6.0, "GPU": 1.5})
    with pytest.raises(ConfigError, match=r"search\.concurrent x cpus: asks for 6 CPUs, .* has 5"):
        check_cluster(Run(), {"CPU": 5.0, "GPU": 9.0})
    with pytest.raises(ConfigError, match=r"search\.concurrent x gpus: asks for 1\.5 GPUs"):
        check_cluster(Run(), {"CPU": 6.0})


def test_a_local_ray_does_not_grow(monkeypatch):
    """It would wait for ever. A job has RAY_ADDRESS, a notebook perhaps a Ray that is asked."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    grows = load_config(None, ["resources.workers=4000", "resources.autoscales=true"])
    with pytest.raises(ConfigError, match=r"this machine has .*Fix: .*resources\.address"):
        check_before_ray(grows)
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        check_before_ray(grows)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    check_before_ray(grows)


def test_a_task_is_compared_with_all_of_ray_and_not_with_its_node(ray_local):
    """A benchmark's cell on a cluster: its node may be a small one."""

    @ray_local.remote(num_cpus=0)
    def checked(workers: int) -> None:
        check_before_ray(load_config(None, [f"resources.workers={workers}"]))

    ray_local.get(checked.remote(8))  # logical CPUs, maybe more than there are cores
    with pytest.raises(ConfigError, match="asks for 9 CPUs, the Ray cluster has 8"):
        ray_local.get(checked.remote(9))


def test_more_than_the_cluster_has_is_refused_unless_it_grows():
    there = {"CPU": 8.0, "GPU": 1.0}
    check_cluster(load_config(None, ["resources.gpus_per_worker=0.5"]), there)
    with pytest.raises(ConfigError, match=r"search.concurrent x search.gpus_per_trial"):
        check_cluster(load_config(None, ["search.gpus_per_trial=1"]), there)
    grows = ["search.gpus_per_trial=1", "resources.autoscales=true"]
    check_cluster(load_config(None, grows), there)


def test_a_parquet_read_starts_one_footer_reader():
    """Ray's default of 32 actors is set by a variable that only Ray's source documents."""
    from ray.data._internal.datasource_v2.formats.parquet.footer_file_indexer import (
        FooterFileIndexer,
    )

    assert FooterFileIndexer(ignore_missing_paths=False)._num_actors == 1


def test_a_worker_that_waits_for_its_next_block_is_kept(ray_local, tmp_path):
    """While actors hold nearly all CPUs, Ray ends whoever idles for a second unless told not to."""
    ray = ray_local

    @ray.remote(num_cpus=7.5)
    class Holder:
        def ready(self) -> bool:
            return True

    @ray.remote(num_cpus=0.25)
    def who(folder: Path) -> int:
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < 2:  # the two do not share a worker
            time.sleep(0.05)
        return os.getpid()

    def workers(folder: Path) -> set[int]:
        folder.mkdir()
        return set(ray.get([who.remote(folder) for _ in range(2)], timeout=120))

    holder = Holder.remote()
    ray.get(holder.ready.remote())
    before = workers(tmp_path / "before")
    time.sleep(3)
    after = workers(tmp_path / "after")
    ray.kill(holder)
    assert len(before) == 2 and after == before


def test_an_address_where_nothing_answers_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, not listening
        with pytest.raises(ConfigError, match=rf"nothing answers at .*{address}.*Fix: start"):
            check_reachable(address)
        free.listen()
        check_reachable(address)
    check_reachable("auto")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo", r"got 'foo', expected host:port \(10.0.0.5:6379"),
        ("", r"got '', expected host:port"),
        ("10.0.0.5", "expected host:port"),
        ("10.0.0.5:", "expected host:port"),
        (":6379", "expected host:port"),
        ("10.0.0.5:0", "expected host:port"),
        ("10.0.0.5:99999", "expected host:port"),
        ("10.0.0.5:٣", "expected host:port"),
        ("fd00::5:6379", "expected host:port"),
        ("a b:6379", "expected host:port"),
        ("local\n", "expected host:port"),
        ("a..b:1", r"nothing answers at a\.\.b:1"),
        (f"{'a' * 64}.b:1", "nothing answers at a"),
        ("ray://10.0.0.5:10001", "Ray client .* not supported. Fix: submit the run as a job"),
        ("http://127.0.0.1:8265", "expected host:port .*Fix: submit the run as a job"),
    ],
)
def test_what_is_no_address_of_a_head_is_refused_before_ray(address, said):
    with pytest.raises(ConfigError, match=said):
        check_reachable(address)


def test_a_head_is_found_by_ipv6(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "socket.create_connection", lambda where, timeout: asked.append(where) or socket.socket()
    )
    for address in ("[fd00::5]:6379", "[fe80::1%eth0]:6379", "head.example_1:6379"):
        check_reachable(address)
    assert asked == [("fd00::5", 6379), ("fe80::1%eth0", 6379), ("head.example_1", 6379)]


def test_what_ray_says_when_it_does_not_start_is_one_line_with_a_fix(monkeypatch, tmp_path):
    starts = []

    def slow(**_: object) -> None:
        starts.append(0)
        raise Exception("The current node timed out during startup.\nand more")

    monkeypatch.setattr("ray.init", slow)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(StageError, match=r"timed out during startup\.\n.*Fix: run the same") as said,
        Session(load_config(None, []), str(tmp_path)) as session,
    ):
        session.start()
    assert "and more" not in str(said.value)
    assert len(starts) == LOCAL_STARTS


@pytest.mark.parametrize("refusal", [ValueError("too little memory"), OSError("path too long")])
def test_what_ray_refuses_is_not_tried_again(monkeypatch, tmp_path, capsys, refusal):
    starts = []

    def refuse(**_: object) -> None:
        starts.append(0)
        raise refusal

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(StageError, match=str(refusal)),
        Session(load_config(None, []), str(tmp_path)) as session,
    ):
        session.start()
    assert len(starts) == 1 and "trying again" not in capsys.readouterr().err


def test_a_run_has_one_session_at_a_time(tmp_path):
    with Session(load_config(), str(tmp_path)):
        with (
            pytest.raises(ConfigError, match=f"is being run by process {os.getpid()} "),
            Session(load_config(), str(tmp_path)),
        ):
            pass
        with Session(load_config(), str(tmp_path / "another")):
            pass
    with Session(load_config(), str(tmp_path)):
        pass


DRIVER = """
import signal
from raysynth.cluster.session import Session
from raysynth.config.files import load_config

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell passes on "ignored"
with Session(load_config(), {root!r}) as session:
    session.start()
    import ray
    task = ray.remote(lambda: __import__("time").sleep(300)).remote()
    print("started", flush=True)
    ray.get(task)
"""


@contextmanager
def started(root: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A driver that waits for a task, and all processes of its Ray."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-c", DRIVER.format(root=str(root))]
    driver = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout.readline() == "started\n"
        daemons = psutil.Process(driver.pid).children(recursive=True)
        assert daemons
        yield driver, daemons
    finally:
        driver.kill()


@pytest.mark.cluster
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_terminated_driver_says_how_to_go_on_and_leaves_nothing(tmp_path, number, code):
    with started(tmp_path) as (driver, daemons):
        driver.send_signal(number)
        _, errors = driver.communicate(timeout=60)
    assert f"raysynth: stopped. The same command goes on with {tmp_path}" in errors
    assert "stack" not in errors.lower() and "SIGTERM" not in errors, errors
    assert driver.returncode == code  # -2: Python ends by SIGINT itself; the command says 130
    assert not psutil.wait_procs(daemons, timeout=20)[1]


@pytest.mark.cluster
@pytest.mark.parametrize("seconds", [0.0, 1.5, 4.0])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_signal_while_ray_starts_waits_until_it_has(tmp_path, number, code, seconds):
    """In the midst of it: a segmentation fault, or daemons left running."""
    script = DRIVER.replace(
        "    session.start()", "    print('starts', flush=True)\n    session.start()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        [sys.executable, "-c", script.format(root=str(tmp_path))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert driver.stdout.readline() == "starts\n"
        time.sleep(seconds)
        daemons = psutil.Process(driver.pid).children(recursive=True)
        os.killpg(driver.pid, number) if number == signal.SIGINT else driver.send_signal(number)
        _, errors = driver.communicate(timeout=200)
    finally:
        driver.kill()
    assert f"raysynth: stopped. The same command goes on with {tmp_path}" in errors
    assert driver.returncode == code, errors
    assert not psutil.wait_procs(daemons, timeout=20)[1]
    late = [each for each in psutil.process_iter() if _session_of(each.pid) == driver.pid]
    left = psutil.wait_procs(late, timeout=20)[1]  # workers of the last moment see Ray gone
    assert all(each.status() == psutil.STATUS_ZOMBIE for each in left), left


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


LOST = """
import threading, time
import psutil
from raysynth.cluster.session import Session
from raysynth.config.files import load_config

def lose_the_first_daemon():
    while True:
        for process in psutil.Process().children(recursive=True):
            if process.name() == "raylet":
                process.kill()
                return
        time.sleep(0.01)

with Session(load_config(), {root!r}) as session:
    threading.Thread(target=lose_the_first_daemon, daemon=True).start()
    session.start()
    import ray
    print(ray.get(ray.remote(lambda: "works").remote()), flush=True)
    print([p.name() for p in psutil.Process().children(recursive=True)].count("gcs_server"))
"""


@pytest.mark.cluster
def test_a_ray_whose_daemon_is_lost_while_it_starts_is_started_again(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-c", LOST.format(root=str(tmp_path))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["works", "1"]  # nothing of the first start is left
    assert "Ray did not start, trying again (1)" in done.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("title", ["raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_a_driver_whose_own_ray_is_killed_says_so_and_is_to_be_tried_again(tmp_path, title):
    """Ray itself would end it without a word, with the code of a fault of ours."""
    with started(tmp_path) as (driver, daemons):
        found = []
        while not found:  # an agent gets its title once it has begun; a busy machine's takes long
            titles = {each: {each.name(), each.cmdline()[0].strip()} for each in daemons}
            found = [each for each, names in titles.items() if title in names]
        daemon = found[0]
        daemon.kill()
        _, errors = driver.communicate(timeout=60)
    name = title.removeprefix("ray::")
    assert f"raysynth: Ray's {name} on this machine (process {daemon.pid}) has ended" in errors
    assert "the same command goes on where it was" in errors
    assert driver.returncode == 3
    assert not psutil.wait_procs(daemons, timeout=20)[1]


@pytest.mark.parametrize(
    ("overrides", "cores", "started", "spare"),
    [
        ([], 2, True, True),
        ([], 1, True, False),
        ([], 2, False, False),
        (["resources.gpus_per_worker=0.5"], 2, True, False),
        (["resources.address=10.0.0.1:6379"], 2, True, False),
    ],
)
def test_cores_are_spare_on_a_ray_of_the_runs_own(
    tmp_path, monkeypatch, overrides, cores, started, spare
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("raysynth.cluster.session.local_cpus", lambda: cores)
    session = Session(load_config(None, overrides), str(tmp_path))
    session.started = started
    assert session.spare is spare
