"""A command that is signalled at a moment, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from raysynth.errors import ConfigError
from raysynth.jobs.status import RUNNING, read_status

END_SECONDS = 15
"""For the command's end; 3 s on a quiet machine, of which 2.5 are patience."""
GONE_SECONDS = 20
"""For the end of its processes, after its own."""
Met = Callable[[psutil.Process, str], bool]
"""Whether a moment has come, by the command's process and what it has printed."""


def at_work(root: Path, stage: str, done: float = 1) -> Met:
    """Whether the status of the run in a folder has a stage at work, so much of it done."""

    def met(process: psutil.Process, said: str) -> bool:
        try:
            status = read_status(str(root))
        except ConfigError:
            return False
        now = status.record.get("now") or () if status.state == RUNNING else ()
        return any(each["stage"] == stage and each["done"] >= done for each in now)

    return met


def ends_soon(arguments: Sequence[str], out: Path, met: Met, number: signal.Signals) -> None:
    """Start `raysynth` with arguments, signal it at a moment, and check that it ends as it should.

    `out`: file for what it prints.
    """
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with out.open("wb") as file:
        run = subprocess.Popen(
            [sys.executable, "-u", "-m", "raysynth", *arguments],
            env=environment,
            stdout=file,
            stderr=file,
        )
    process, others = psutil.Process(run.pid), []
    try:
        while run.poll() is None:
            others = process.children(recursive=True)
            if met(process, out.read_text()):
                break
            time.sleep(0.1)
        assert run.poll() is None, f"it never came to that: {out.read_text()}"
        before = time.monotonic()
        run.send_signal(number)
        run.wait(60)
    finally:
        run.kill()
    said = out.read_text()
    assert run.returncode == 128 + number, said
    assert time.monotonic() - before < END_SECONDS
    assert "raysynth: stopped. The same command goes on" in said and "Traceback" not in said
    assert others and not psutil.wait_procs(others, timeout=GONE_SECONDS)[1]
