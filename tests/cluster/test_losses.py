"""What Ray says of lost workers and nodes is one line in raysynth's words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from raysynth.cluster.losses import Losses, loss_of

DIED = (
    "A worker died or was killed while executing a task by an unexpected system error. To "
    "troubleshoot the problem, check the logs for the dead worker. Lease ID: 00db4ca5 Worker ID: "
    "68b34a92 Node ID: 078690af Worker IP address: 10.0.0.5 Worker port: 43633 Worker PID: 22112 "
    "Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a "
    "connection error code 2. End of file. Some common causes include: (1) the process was killed "
    "by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the "
    "worker crashed unexpectedly due to SIGSEGV or another unexpected error."
)
RETRIED = (
    "Task MapWorker(MapBatches(Synthesizer)).submit failed. There are infinite retries remaining, "
    "so the task will be retried. Error: "
)
OOM = "2 worker(s) were killed due to the node running low on memory. Memory usage 15.2GB / 16GB"
NODE = (
    "The node with node id: 078690af and address: 10.0.0.7 and node name: 10.0.0.7 has been marked "
    "dead because the detector has missed too many heartbeats from it."
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DIED, "a worker was lost (process 22112 on 10.0.0.5, killed, or crashed)"),
        (RETRIED, "a generating actor was lost"),
        (
            "Task _train_in_worker failed. There are 1 oom retries remaining, 2 retries remaining",
            "a classifier's training was lost; tries left: 2",
        ),
        ("Task f failed. There are 0 retries remaining", "a worker (f) was lost; tries left: 0"),
        (
            OOM,
            "a worker was lost (its node's memory was full: fewer workers per node or smaller "
            "batches take less)",
        ),
        (NODE, "a node was lost (10.0.0.7, Ray hears nothing of it)"),
    ],
)
def test_a_loss_is_named(text, told):
    loss = loss_of(text)
    assert loss is not None and loss.told == told


def test_what_is_no_loss_stays_rays():
    assert (
        loss_of("Warning: The following resource request cannot be scheduled: {'GPU': 1}") is None
    )


def test_two_messages_on_one_worker_are_one_line(monkeypatch):
    monkeypatch.setattr("raysynth.cluster.losses.MERGE_SECONDS", 0.2)
    said: list[str] = []
    kept: list[str] = []
    losses = Losses(said.append, kept.append)
    assert losses.hear(DIED) and losses.hear(RETRIED)
    assert said == ["a generating actor was lost (process 22112 on 10.0.0.5, killed, or crashed)"]
    assert losses.hear(DIED) and losses.hear(DIED)  # of two workers, neither with a task
    for timer in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
        timer.join()
    assert said[1:] == ["a worker was lost (process 22112 on 10.0.0.5, killed, or crashed)"] * 2
    assert losses.hear(DIED) and losses.hear(OOM)
    assert said.pop().startswith("a worker was lost (process 22112 on 10.0.0.5, its node's memory")
    assert not losses.hear("another message")
    losses.ending = True
    losses.hear(RETRIED)
    losses.flush()
    assert len(said) == 3 and len(kept) == 8


KILLED = """
import os, sys
from raysynth.cluster.losses import Losses
from raysynth.cluster.session import Session
from raysynth.config.files import load_config

def _train_in_worker(path):
    import os
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), 9)
    return "again"

with Session(load_config(), {root!r}) as session:
    session.losses = Losses(lambda text: print("said:", text, flush=True), lambda text: None)
    session.start()
    import ray, time
    print(ray.get(ray.remote(max_retries=2)(_train_in_worker).remote({root!r} + "/once")))
    time.sleep(3)
"""


@pytest.mark.cluster
def test_rays_own_block_does_not_reach_the_terminal(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-c", KILLED.format(root=str(tmp_path))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert "again" in done.stdout, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("said:")]
    assert "said: a classifier's training was lost (process " in said
    assert said.endswith(", killed, or crashed); tries left: 2")
    assert "raylet" not in done.stdout + done.stderr
