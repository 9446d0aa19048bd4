"""Jobs on a real head, as docs/cluster.md says: submitted, followed, stopped, gone on with."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from raysynth.cluster.local import LOCAL_ENVIRONMENT

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """A Ray head of its own with a job server; yields its address and the environment."""
    folder = tempfile.mkdtemp(prefix="rj", dir="/tmp")
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # a new machine has none in ~/.ray
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "PATH": bin_first,
    }
    for name in ("RAY_ADDRESS", *LOCAL_ENVIRONMENT):  # this test session's own; no head's
        environment.pop(name, None)
    port, dashboard, agent = free_port(), free_port(), free_port()
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=8"]
    command += [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
    # The agent's own default, 52365, lies among the ports any connection may hold; an agent that
    # does not get it lives on without its job server.
    command += [f"--dashboard-agent-listen-port={agent}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(dashboard)
        wait_for_port(agent)
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"no job server on port {port}")


def submit(head, script: str, *arguments: str) -> subprocess.CompletedProcess:
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--"]
    command += ["python", script, *arguments]
    deadline = time.monotonic() + 120
    while True:  # the agent listens before the head knows it
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        known = "No available agent" not in done.stdout + done.stderr
        if known or time.monotonic() > deadline:
            return done


@pytest.mark.cluster
def test_a_submitted_stage_writes_to_the_storage_path(head, tmp_path):
    sizes = ["train_images=40", "validation_images=8", "test_images=8", "severity=0.8"]
    overrides = [f"storage_path={tmp_path}", "name=job", *(f"dataset.{s}" for s in sizes)]
    done = submit(head, "jobs/ingest.py", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "job/real/train-00000.parquet").exists()


@pytest.mark.cluster
def test_a_relative_storage_path_is_refused(head):
    done = submit(head, "jobs/full_pipeline.py", "storage_path=runs")
    assert done.returncode != 0
    assert "relative path 'runs' inside a Ray job" in done.stdout + done.stderr


@pytest.mark.cluster
def test_more_than_the_cluster_has_is_refused(head, tmp_path):
    overrides = [f"storage_path={tmp_path}", "name=job", "resources.workers=900"]
    done = submit(head, "jobs/ingest.py", *overrides)
    assert done.returncode != 0
    assert "asks for 900 CPUs, the Ray cluster has 8" in done.stdout + done.stderr


def raysynth(head, *arguments: str) -> subprocess.Popen:
    """The command, as a user of the head's machine gives it; only the token is in its shell."""
    address, environment = head
    plain = {k: v for k, v in environment.items() if k != "RAY_AUTH_MODE"}
    environment = plain | {"RAY_API_SERVER_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "raysynth", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


SMALL = [f"dataset.{s}" for s in ("train_images=40", "validation_images=8", "test_images=8")]


@pytest.mark.cluster
def test_submit_follows_a_run_and_ends_with_its_code(head, tmp_path):
    given = [f"storage_path={tmp_path}", "name=birds", *SMALL]
    code, out, err = ended(raysynth(head, "submit", *given, "--until", "ingest", "--id", "birds-1"))
    assert code == 0, out + err
    assert "ingest" in out and "job birds-1 done, exit code 0" in err
    assert "Traceback" not in out + err
    record = json.loads((tmp_path / "birds" / "status.json").read_text())
    assert record["driver"]["job"] == "birds-1" and record["ended"]["how"] == "finished"

    # What the job alone can know is refused by it, and an id is used once.
    refused = raysynth(head, "submit", *given, "resources.workers=900", "--until", "report")
    again = raysynth(head, "submit", *given, "--until", "ingest", "--id", "birds-1", "--no-wait")
    code, out, err = ended(refused)
    assert code == 2 and "asks for 900 CPUs, the Ray cluster has 8" in out, out + err
    code, out, err = ended(again)
    assert code == 2 and "--id: a job birds-1 is there already" in err, out + err


CODES = """
import json, sys
from raysynth.jobs.client import Jobs, exit_code
jobs = Jobs()
commands = {"one": "exit 1", "try": "exit 3", "killed": "kill -9 $$", "twice": "echo a; exit 130"}
for name, command in commands.items():
    jobs.submit(name, f"exec sh -c '{command}'", {}, "/runs/a")
said, codes = [], {}
for name in commands:
    codes[name] = exit_code(jobs.follow(name, said.append))
    jobs.follow(name, lambda text: None)  # an ended one is followed to its end
jobs.submit("lost", "true", {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "/runs/a")
codes["lost"] = exit_code(jobs.follow("lost", lambda text: None))
print(json.dumps([codes, "".join(said), jobs.log("twice")]))
"""


@pytest.mark.cluster
def test_every_code_is_the_scripts_own(head):
    address, environment = head
    environment = environment | {"RAY_API_SERVER_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODES], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    codes, said, log = json.loads(done.stdout.splitlines()[-1])
    assert codes == {"one": 1, "try": 3, "killed": 137, "twice": 130, "lost": 3}
    assert said.count("\na\n") == 1 and "\na\n" in log


@pytest.mark.cluster
def test_ctrl_c_leaves_the_job_and_stop_ends_it(head, tmp_path):
    process = raysynth(head, "submit", f"storage_path={tmp_path}", "name=long", "--id", "long-1")
    for line in process.stdout:
        if "ingest" in line:  # the script is at work
            break
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130, out + err
    assert "job long-1 runs on" in err and "raysynth stop long-1 --address http" in err
    look = raysynth(head, "status", f"{tmp_path}/long", "--json")
    stop = raysynth(head, "stop", f"{tmp_path}/long")
    assert json.loads(ended(look)[1])["driver"]["job"] == "long-1"
    code, out, err = ended(stop)
    assert code == 0 and "job long-1: STOPPED" in out and "resume" in out, out + err
    code, out, err = ended(raysynth(head, "logs", "long-1"))
    assert code == 0 and "raysynth: stopped" in out, out + err
    told = json.loads((tmp_path / "long" / "status.json").read_text())
    assert told["ended"]["how"] == "stopped"

    again = raysynth(head, "resume", f"{tmp_path}/long", "--submit", "--until", "ingest", *SMALL)
    code, out, err = ended(again)
    assert code == 0, out + err
    assert json.loads((tmp_path / "long" / "status.json").read_text())["attempts"] == 2


@pytest.mark.cluster
def test_no_such_job_and_no_such_token_are_refused(head):
    code, _, err = ended(raysynth(head, "logs", "nothing-1"))
    assert code == 2 and "nothing-1: no job of this id at http" in err
    address, environment = head
    wrong = address, environment | {"RAY_AUTH_TOKEN": "0" * 64}
    code, _, err = ended(raysynth(wrong, "stop", "nothing-1"))
    assert code == 2 and "asks for a token that is not the one here" in err
    nobody = "http://127.0.0.1:9", environment
    code, _, err = ended(raysynth(nobody, "logs", "nothing-1"))
    assert code == 3 and "no job server answers" in err and "Traceback" not in err
