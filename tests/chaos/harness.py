"""Moments, one after another: the reference, a record of each, and the table of all."""

from __future__ import annotations

import json
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from types import FrameType

from raysynth.terminal import clipped
from tests.chaos.driver import Driver
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.following import Follower, bytes_below
from tests.chaos.miniature import COUNTING, STAGES, Reference, command, counted, environment
from tests.chaos.proxy import served
from tests.chaos.scene import MissedError, Moment, Record, Scene

RECORDS = "chaos.jsonl"
TRIES = 3
"""Of a moment that came too late; each at half of the work of the one before."""
SIZE_SECONDS = 0.3
LONGEST_WORDS = 110


class Suite:
    """Moments below a folder; a context manager that leaves no server behind."""

    def __init__(self, folder: Path, limit: float) -> None:
        """`folder`: of the reference, the records and the runs; `limit`: seconds of a command."""
        self.folder, self.limit = folder, limit
        self.reference = Reference(folder)
        self._open = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Suite:
        # Started in the background of a shell, a process ignores Ctrl-C, and so would a driver.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _leave)  # with what was started
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def port(self) -> int:
        """Of the S3 server, started when it is first asked for."""
        return self._open.enter_context(served(self.folder / "moto.log"))

    def build(self, last: str) -> None:
        """Make what the reference lacks up to a stage."""
        for stage in self.reference.missing(last):
            print(f"reference: {stage}", flush=True)
            build(self.reference, stage, self.folder / "building", self.limit)

    def run(self, moment: Moment) -> Record:
        """One moment; what goes wrong is in the record."""
        began, fault = time.monotonic(), FAULTS[moment.fault]
        self.build(fault.upto or moment.stage)
        for number in range(TRIES):
            record = self._try(moment, fault, 0.5**number)
            if not record.problem.startswith(MissedError.__name__):
                break
        record.took = round(time.monotonic() - began, 1)
        with (self.folder / RECORDS).open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        return record

    def _try(self, moment: Moment, fault: Fault, share: float) -> Record:
        """`share`: of the moment's fraction of the work."""
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        scene = Scene(moment, self.reference, folder, lambda: self.port, self.limit)
        scene.until = fault.upto or moment.stage
        scene.fraction = scene.record.fraction = round(scene.fraction * share, 4)
        try:
            with scene.open:
                fault.do(scene)
                scene.compare()
        except Exception as error:  # hours of moments do not end with one
            scene.record.problem = f"{type(error).__name__}: {str(error)[-600:]}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return scene.record


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def build(reference: Reference, stage: str, folder: Path, limit: float) -> None:
    """Make a stage of the reference, and measure it.

    Facts: units of work that a `Follower` sees, the driver's own changes to files, bytes that the
    run's folder grows by at its largest, and seconds.
    """
    run = reference.start(stage, folder)
    begin, peak, sized = bytes_below(run) if run.exists() else 0, 0, 0.0
    scratch = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    count = scratch / "count"
    given = environment(scratch, counted(run, count, 0))
    follower = Follower(run, stage)
    try:
        log, asked = scratch / "said.txt", command(str(folder), stage, program=COUNTING)
        with Driver(asked, given, log, limit) as driver:

            def look(now: float) -> None:
                nonlocal peak, sized
                follower.look()
                if now - sized > SIZE_SECONDS:
                    sized, peak = now, max(peak, bytes_below(run))

            code, seconds = driver.end(look), time.monotonic() - driver.begun
            if code:
                raise RuntimeError(f"the reference's {stage} ended with {code}: {driver.text}")
            growth = max(peak, bytes_below(run)) - begin
            facts = {"units": follower.most, "operations": int(count.read_text())}
            facts |= {"bytes": growth, "seconds": round(seconds, 1)}
            reference.keep(stage, run, driver.text, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def planned(count: int, seed: int, faults: Iterable[str], stages: Sequence[str]) -> list[Moment]:
    """`count` moments of each fault, dealt to its stages in turn; a fault's nth of each fault."""
    moments = []
    for number in range(count):
        for fault in faults:
            own = [stage for stage in FAULTS[fault].stages if stage in stages]
            if own:
                turn, place = divmod(number, len(own))
                moments.append(Moment(fault, own[place], turn, seed))
    return moments


def read_records(path: Path) -> list[Record]:
    """The records of a file, the last of each moment; lines that were cut off are left out."""
    known = {field.name for field in fields(Record)}
    found: dict[Moment, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = Record(**{k: v for k, v in json.loads(line).items() if k in known})
        except (ValueError, TypeError, AttributeError):
            continue
        found[moment_of(record)] = record
    return list(found.values())


def moment_of(record: Record) -> Moment:
    """Whose record it is."""
    return Moment(record.fault, record.stage, record.number, record.seed)


def table(records: Sequence[Record]) -> str:
    """A row per fault in Markdown; moments in which harm was not done are no trials."""
    head = (
        "fault",
        "in stages",
        "tried",
        "lost",
        "doubled",
        "equal by bits",
        "goes on after, s: median, longest",
        "what is said most often",
    )
    lines = [f"| {' | '.join(head)} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    by_fault = defaultdict(list)
    for record in records:
        if not record.problem:
            by_fault[record.fault].append(record)
    for name, fault in FAULTS.items():
        if tried := by_fault.get(name):
            lines.append(f"| {' | '.join(_row(fault, tried))} |")
    return "\n".join(lines)


def _row(fault: Fault, tried: Sequence[Record]) -> list[str]:
    stages = Counter(record.stage for record in tried)
    seconds = [record.seconds for record in tried if record.seconds is not None]
    pace = f"{statistics.median(seconds):.0f}, {max(seconds):.0f}" if seconds else "–"
    alike = Counter(re.sub(r"\d+", "0", record.said) for record in tried).most_common(1)[0][0]
    words = next(r.said for r in tried if re.sub(r"\d+", "0", r.said) == alike)
    equal, things = (sum(getattr(r, name) for r in tried) for name in ("equal", "things"))
    return [
        fault.title,
        ", ".join(f"{stage} {stages[stage]}" for stage in STAGES if stage in stages),
        str(len(tried)),
        str(sum(record.lost for record in tried)),
        str(sum(record.doubled for record in tried)),
        f"{equal:,} of {things:,}",
        pace,
        clipped(words.replace("|", "/"), LONGEST_WORDS),
    ]


def findings(records: Sequence[Record]) -> str:
    """Every moment that did not end well, and what it was."""
    lines = []
    for r in records:
        if not r.well:
            what = r.problem or (
                f"codes {r.codes}, lost {r.lost}, doubled {r.doubled}, equal {r.equal} of "
                f"{r.things}, differ {r.differ[:3]}, stray {r.stray[:3]}; {r.said}"
            )
            lines.append(f"{r.fault} {r.stage} {r.number}: {r.harm}: {what}")
    return "\n".join(lines)


def shortfall(moments: Sequence[Moment], records: Sequence[Record]) -> str:
    """How many moments of which fault and stage are missing."""
    done = {moment_of(record) for record in records if not record.problem}
    left = Counter((moment.fault, moment.stage) for moment in moments if moment not in done)
    return ", ".join(f"{fault} in {stage}: {count}" for (fault, stage), count in left.items())
