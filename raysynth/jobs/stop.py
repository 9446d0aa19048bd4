"""Ending a run that is at work: as Ctrl-C would, and not before it has ended."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable

from raysynth.cluster.note import Born, SessionNote, alive
from raysynth.config.files import read_config
from raysynth.errors import ConfigError, RaysynthError, StageError
from raysynth.jobs.client import Jobs
from raysynth.jobs.status import GONE, RUNNING, SILENT, Status, driver_of, read_status
from raysynth.stages.run import CONFIG
from raysynth.terminal import masked

WAIT_SECONDS = 90.0
"""For the end of what was asked to end."""
POLL_SECONDS = 0.2


def stop_job(jobs: Jobs, name: str, run: str = "RUN") -> str:
    """Stop a Ray job and wait for its end; what came of it, in a sentence.

    Raises
    ------
    StageError
        It has not ended after WAIT_SECONDS.
    """
    before = jobs.info(name)
    if before.status.is_terminal():
        return f"job {name} is not running: {before.status.value}"
    jobs.stop(name)
    found = jobs.wait(name, WAIT_SECONDS)
    if not found.status.is_terminal():
        raise StageError(
            f"job {name} has not ended after {WAIT_SECONDS:.0f} s ({found.status.value}). Fix: "
            f"raysynth logs {name}, then stop it again"
        )
    return f"job {name}: {found.status.value}. {_goes_on(run)}"


def stop_run(root: str, jobs: Callable[[], Jobs]) -> str:
    """Stop the driver of a run, wherever it can be reached from here; what came of it.

    Parameters
    ----------
    jobs : the cluster's job server; asked for only where the run is one of its jobs.

    Raises
    ------
    ConfigError
        It is driven from another machine, and by no job.
    StageError
        It has not ended after WAIT_SECONDS.
    """
    status = read_status(root)
    job = (status.record.get("driver") or {}).get("job")
    if job and status.state in (RUNNING, SILENT, GONE):
        return stop_job(jobs(), job, root)
    driver = _driver_here(root)
    if driver is None:
        if status.state in (RUNNING, SILENT):
            raise _elsewhere(status)
        return f"{masked(root)} is not at work"
    _end(driver)
    return f"process {driver[0]} has ended. {_goes_on(root)}"


def _driver_here(root: str) -> Born | None:
    """The run's driver on this machine, from the note that nobody else can have written.

    Not from the run's folder: who may write there would have any process of ours ended.
    """
    roots = [root]
    try:
        config = read_config(f"{root}/{CONFIG}")
        roots.append(config.root)  # as its driver names it
    except RaysynthError:
        pass
    found = (SessionNote(each).driver() for each in dict.fromkeys(roots))
    return next((driver for driver in found if driver is not None), None)


def _end(driver: Born) -> None:
    if process := alive(driver):
        process.terminate()
    deadline = time.monotonic() + WAIT_SECONDS
    while alive(driver) is not None:
        if time.monotonic() > deadline:
            raise StageError(
                f"process {driver[0]} has not ended after {WAIT_SECONDS:.0f} s. Fix: kill -9 "
                f"{driver[0]}; the same command goes on where it was"
            )
        time.sleep(POLL_SECONDS)


def _elsewhere(status: Status) -> ConfigError:
    driver, pair = status.record.get("driver") or {}, driver_of(status.record)
    pid = pair[0] if pair else "unknown"
    return ConfigError(
        f"{masked(status.root)}: driven by process {pid} on {driver.get('host')}, which cannot be "
        f"reached from here. Fix: there, `raysynth stop {masked(status.root)}`, or `kill {pid}`"
    )


def _goes_on(run: str) -> str:
    return f"It goes on with: raysynth resume {shlex.quote(masked(run))}"
