"""How far a run is, read from its folder: without Ray, from any machine that sees the folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from raysynth.cluster.note import Born, alive, machine
from raysynth.errors import ConfigError, DataError
from raysynth.jobs.cells import CELLS, RUNS, cells_below, counted, failures, states
from raysynth.jobs.heartbeat import FINISHED, STATUS, STOPPED
from raysynth.pace import duration
from raysynth.stages.record import MANIFEST
from raysynth.stages.run import CONFIG
from raysynth.storage.files import exists, open_storage, read_json
from raysynth.terminal import masked, shown

READ_SECONDS = 10.0
"""To wait for a storage that is away."""
LATE_SECONDS, LATE_WRITES = 60.0, 6
"""A driver that has not written for so long, or so many times in a row, gives no sign of life."""
REFUSED = ConfigError.exit_code
RUNNING, SILENT, GONE, UNKNOWN = "running", "silent", "gone", "unknown"
AT_WORK = (RUNNING, SILENT, GONE)
"""States of what has not said that it has ended."""


@dataclass(frozen=True)
class Status:
    """What a run's folder says of it."""

    root: str
    state: str
    """running; silent: no sign of life; gone: its process is no more; how it ended (finished,
    stopped, failed); unknown: nothing that writes a status has run it."""
    age: float | None
    """Seconds since the last sign of life."""
    made: tuple[dict[str, Any], ...]
    """Finished stages: stage, seconds, rows; of a run at work those that it has met already."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The status file's."""
    note: str = ""
    """What could not be read."""
    cells: Mapping[str, Status] = field(default_factory=dict)
    """Of a benchmark: its cells at work; all that are there, where nothing says which are."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        found = {"run": masked(self.root), "state": self.state, "age": self.age}
        note = {"note": self.note} if self.note else {}
        cells = {name: cell.to_dict() for name, cell in self.cells.items()}
        runs = {"cell_runs": cells} if cells else {}
        return found | dict(self.record) | {"made": list(self.made)} | note | runs


def read_status(root: str) -> Status:
    """The status of the run, or of the benchmark, in a folder or URI.

    Raises
    ------
    ConfigError
        There is no run.
    StorageError
        Its storage does not answer, or refuses.
    """
    open_storage(root)[0].invalidate_cache()
    record, note = _read(f"{root}/{STATUS}")
    manifest, _ = _read(f"{root}/{MANIFEST}")
    if not record and not manifest and not exists(f"{root}/{CONFIG}"):
        if not (names := cells_below(root, READ_SECONDS)):
            raise _no_run(root)
        return Status(root, UNKNOWN, None, (), note=note, cells=_cells(root, names))
    if not record:
        return Status(root, UNKNOWN, None, _made(manifest), note=note)
    updated = record.get("updated")
    age = max(time.time() - updated, 0.0) if isinstance(updated, int | float) else None
    met = record.get("made") if record.get("stages") else None
    made = tuple(one for one in _made(manifest) if met is None or one["stage"] in met)
    state, cells = _state(record, age), record.get(CELLS)
    at_work = cells.get("at_work") if isinstance(cells, dict) and state in AT_WORK else ()
    return Status(root, state, age, made, record, cells=_cells(root, at_work or ()))


def _cells(root: str, names: Iterable[str]) -> dict[str, Status]:
    """The cells of a benchmark that have begun, by name."""
    found = {}
    for name in names:
        with suppress(ConfigError):  # it has not begun
            found[name] = read_status(f"{root}/{RUNS}/{name}")
    return found


def _read(path: str) -> tuple[dict[str, Any], str]:
    """A file's object, empty where there is none; why it cannot be read."""
    try:
        found = read_json(path, READ_SECONDS)
    except DataError as error:
        return {}, str(error).partition(" Fix: ")[0]
    return (found, "") if isinstance(found, dict) else ({}, "")


def _made(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    stages = manifest.get("stages")
    return tuple(
        {"stage": name, "seconds": one.get("seconds"), "rows": one.get("rows")}
        for name, one in (stages.items() if isinstance(stages, dict) else ())
        if isinstance(one, dict)
    )


def _state(record: Mapping[str, Any], age: float | None) -> str:
    ended = record.get("ended")
    if isinstance(ended, dict):
        return str(ended.get("how"))
    driver = driver_of(record)
    if driver is not None and is_here(record) and alive(driver) is None:
        return GONE
    every = record.get("every")
    late = max(LATE_SECONDS, LATE_WRITES * every if isinstance(every, int | float) else 0.0)
    return RUNNING if age is not None and age < late else SILENT


def driver_of(record: Mapping[str, Any]) -> Born | None:
    """The driver's process; None: the record names none."""
    driver = record.get("driver")
    found = (driver.get("pid"), driver.get("born")) if isinstance(driver, dict) else (None, None)
    pid, start = found
    return (pid, float(start)) if isinstance(pid, int) and isinstance(start, int | float) else None


def is_here(record: Mapping[str, Any]) -> bool:
    """Whether the driver runs, or ran, on this machine."""
    driver = record.get("driver")
    if not isinstance(driver, dict):
        return False
    if told := driver.get("machine"):  # of a container, a host's name may be any
        return bool(told == machine())
    return driver.get("host") == socket.gethostname()  # written by a version of before


def _no_run(root: str) -> ConfigError:
    storage, path = open_storage(root)
    below = []
    if storage.exists(path):
        folders = sorted(name.rstrip("/") for name in storage.ls(path, detail=False))
        below = [f.rsplit("/", 1)[-1] for f in folders if storage.exists(f"{f}/{CONFIG}")]
    found = f"; below it are the runs {', '.join(below)}" if below else ""
    return ConfigError(
        f"{shown(masked(root))}: no run{found}; expected a folder with {CONFIG}. Fix: name a run's "
        "folder (storage_path/name), or the configuration that it was started with"
    )


def in_words(status: Status) -> list[str]:
    """Lines for people: what it does, who drives it, what went wrong, what is made and to come."""
    record, of_cells = status.record, status.cells or CELLS in status.record
    lines = [f"run       {masked(status.root)}", f"state     {_doing(status)}"]
    if of_cells:
        lines += _of_cells(status)
    elif status.state in AT_WORK:
        for each in _now(record):
            lines += [f"stage     {_told(each)}", *_details(each)]
    if driver := record.get("driver"):
        job = f", job {driver['job']}" if driver.get("job") else ""
        lines.append(f"driver    process {driver.get('pid')} on {driver.get('host')}{job}")
    if isinstance(record.get("started"), int | float):
        since = f"began {_ago(time.time() - record['started'])}"
        lines.append(f"attempts  {record.get('attempts')}; the last {since}")
    if error := record.get("last_error"):
        text = str(error.get("text")).replace("\n", "\n          ")
        lines.append(f"error     attempt {error.get('attempt')}: {text}")
    if not of_cells:
        lines += _stages(status)
    if status.note:
        lines.append(f"note      {status.note}")
    return [shown(line, lines=True) for line in lines]


def _stages(status: Status) -> list[str]:
    """What is made and what is to come."""
    made = [f"{one['stage']} {duration(one['seconds'])}" for one in status.made]
    lines = [f"made      {', '.join(made) or 'nothing yet'}"]
    # Of a run that has ended, stages may have been forgotten since (`raysynth verify --redo`).
    there: Iterable[str] = [one["stage"] for one in status.made]
    if status.state in AT_WORK:
        there = status.record.get("made") or ()
    left = [name for name in status.record.get("stages") or () if name not in there]
    return [*lines, f"to come   {', '.join(left)}"] if left else lines


def _of_cells(status: Status) -> list[str]:
    """How many cells are done, what those at work do, why others failed."""
    cells = status.record.get(CELLS)
    if not isinstance(cells, dict):
        return [f"cells     {states({name: each.state for name, each in status.cells.items()})}"]
    lines = [f"cells     {counted(cells, at_work=status.state in AT_WORK)}"]
    for name, cell in status.cells.items():
        now = [_told(each) for each in _now(cell.record)] if cell.state in AT_WORK else []
        lines.append(f"at work   {name}: {'; '.join(now) or cell.state}")
    return lines + failures(cells)


def _now(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is at work; without the one that only waits for another."""
    at: list[Mapping[str, Any]] = [
        each for each in record.get("now") or () if isinstance(each, dict) and each.get("stage")
    ]
    return [each for each in at if each["stage"] != "waiting"] or at


def _doing(status: Status) -> str:
    ended = status.record.get("ended") or {}
    ago = f"{duration(status.age)} ago" if status.age is not None else "at an unknown time"
    goes_on = "the same command goes on"
    if CELLS not in status.record:
        goes_on = "the same command, or `raysynth resume`, goes on"
    if status.state == RUNNING:
        return f"running; last sign of life {ago}"
    if status.state == SILENT:
        return f"no sign of life for {duration(status.age)}; {goes_on} if it is dead"
    if status.state == GONE:
        return f"its process is gone; last sign of life {ago}; {goes_on}"
    if status.state == FINISHED:
        until = status.record.get("until")
        return f"finished{f' up to {until}' if until else ''} {ago}"
    if status.state == STOPPED:
        return f"stopped {ago}; {goes_on}"
    if status.state == UNKNOWN:
        return "unknown: no status file, so only what is made is known"
    code = ended.get("code")
    return f"failed {ago}, exit code {code}{f'; {goes_on}' if code != REFUSED else ', refused'}"


def _told(at: Mapping[str, Any]) -> str:
    """`synthesis: images generated 1,200 of 4,000 (30 %), 12.3/s, about 4 min left`."""
    parts = [str(at.get("what") or "")]
    done, total, rate = at.get("done") or 0, at.get("total") or 0, at.get("rate")
    if total:
        parts[0] += f" {done:,.0f} of {total:,.0f} ({100 * done / total:.0f} %)"
    if rate:
        parts.append(f"{rate:.3g}/s" if rate >= 1 else f"one in {duration(1 / rate)}")
    if at.get("left"):
        parts.append(f"about {duration(at['left'])} left")
    return f"{at['stage']}: {', '.join(parts)}"


def _details(at: Mapping[str, Any]) -> list[str]:
    """What is behind a stage's count, a line each."""
    found = at.get("details")
    return [f"          {k}: {v}" for k, v in found.items()] if isinstance(found, dict) else []


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"
