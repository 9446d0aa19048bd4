"""Runs a target's inputs and sorts how each of them ends.

An input ends well when it is accepted (and what came of it can be used once more) or refused in
words; everything else is listed by exception and place. A batch runs in a process of its own: one
that dies, or that is silent for `SILENCE` seconds, is a finding too and ends only itself.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from raysynth.errors import RaysynthError

SLOW = 5.0
"""Seconds that an input may take, without those in which the machine was busy with others; a slower
one is timed once more."""
SILENCE = 120.0
"""Seconds, counted likewise, after which a batch that still works on one input is ended."""
LONGEST = 4000
"""Characters of a refusal."""
MEMORY = 24 * 2**30
"""Bytes of addresses a batch may map: what asks for more fails instead of filling the machine."""
SHOWN = 300
"""Characters of an input that are kept with a finding."""
PACKAGE = f"{os.sep}raysynth{os.sep}"
HERE = f"{os.sep}fuzz{os.sep}"


class UnreadableError(Exception):
    """The documented other ending of an image: it cannot be read, and is counted as such."""


@dataclass(frozen=True)
class Target:
    """Something that takes input from outside."""

    name: str
    inputs: SearchStrategy[Any]
    start: Callable[[Path], Any]
    """Prepares a batch in an empty folder; what it returns is handed to `take` and `again`."""
    take: Callable[[Any, Any], Any]
    """(state, input) -> what is made of it; raises RaysynthError or UnreadableError to refuse."""
    again: Callable[[Any, Any], None] = lambda state, made: None
    """(state, made): uses what was accepted once more; may not refuse it any more."""
    share: float = 1.0
    """Inputs of this target per input asked for of each."""


@dataclass
class Tally:
    """How the inputs of a target ended."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    other: int = 0
    slow: int = 0
    longest_message: int = 0
    slowest: float = 0.0
    peak_mb: int = 0
    cpu_seconds: float = 0.0
    endings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`exception at place` -> how often, its message, an input."""

    def add(self, more: Tally) -> None:
        """Take in another batch."""
        for key in ("inputs", "accepted", "refused", "other", "slow", "cpu_seconds"):
            setattr(self, key, getattr(self, key) + getattr(more, key))
        for key in ("longest_message", "slowest", "peak_mb"):
            setattr(self, key, max(getattr(self, key), getattr(more, key)))
        for key, found in more.endings.items():
            self._keep(key, found["message"], found["input"], found["count"])

    def finding(self, key: str, message: str, given: str) -> None:
        """Count an ending that is neither an acceptance nor a refusal."""
        self.other += 1
        self._keep(key, message, given, 1)

    def _keep(self, key: str, message: str, given: str, count: int) -> None:
        found = self.endings.setdefault(key, {"count": 0, "message": message, "input": given})
        found["count"] += count
        if len(given) < len(found["input"]):
            found["message"], found["input"] = message, given


class Watched:
    """What a batch's process tells of itself while it runs: its input, and since when."""

    def __init__(self) -> None:
        self.since = multiprocessing.RawValue("d", time.monotonic())
        self.input = multiprocessing.RawArray("c", 4 * SHOWN + 1)

    def begin(self, given: str) -> None:
        """Note an input down."""
        self.input.value = given.encode("utf-8", "backslashreplace")[: 4 * SHOWN]
        self.since.value = _clock()


def run_inputs(target: Target, count: int, number: int, watched: Watched | None = None) -> Tally:
    """`count` inputs of a target, a function of `number` alone, in this process."""
    tally, watch, start = Tally(), watched or Watched(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as folder:
        for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HOME"):
            os.environ[name] = folder
        tempfile.tempdir = folder
        state = target.start(Path(folder))

        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(target.inputs)
        def each(given_input: Any) -> None:
            _one(target, state, given_input, tally, watch)

        each()
    tally.cpu_seconds = time.process_time() - start
    tally.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return tally


def _one(target: Target, state: Any, given_input: Any, tally: Tally, watch: Watched) -> None:
    shown = _short(given_input)
    watch.begin(f"{target.name}: {shown}")
    before, start = (tally.accepted, tally.refused), _clock()
    _end(target, state, given_input, tally, shown)
    seconds = _clock() - start
    if seconds > SLOW:
        start = _clock()
        _end(target, state, given_input, Tally(), shown)
        seconds = min(seconds, _clock() - start)
    tally.inputs += 1
    tally.slowest = max(tally.slowest, seconds)
    if seconds > SLOW:
        tally.slow += 1
        tally.accepted, tally.refused = before
        tally.finding(f"slow: {target.name}", f"{seconds:.1f} s", shown)


def _clock(process: int | str = "thread-self") -> float:
    """Seconds, less those that a process's main thread waited for a core (Linux)."""
    try:
        with open(f"/proc/{process}/schedstat") as file:
            return time.monotonic() - int(file.read().split()[1]) / 1e9
    except OSError:
        return time.monotonic()


def _end(target: Target, state: Any, given_input: Any, tally: Tally, shown: str) -> None:
    """Run one input; count how it ends."""
    try:
        made = target.take(state, given_input)
    except UnreadableError:
        tally.refused += 1
        return
    except RaysynthError as error:
        length = len(str(error))
        tally.longest_message = max(tally.longest_message, length)
        if 0 < length <= LONGEST:
            tally.refused += 1
        else:
            place = _place(error)
            tally.finding(f"message of a wrong length at {place}", f"{length} characters", shown)
        return
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library's panic is no Exception
        tally.finding(f"{type(error).__name__} at {_place(error)}", str(error)[:SHOWN], shown)
        return
    try:
        target.again(state, made)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        key = f"accepted, then {type(error).__name__} at {_place(error)}"
        tally.finding(key, str(error)[:SHOWN], shown)
        return
    tally.accepted += 1


def _place(error: BaseException) -> str:
    """File and line of the package's last frame, and of the frame that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if PACKAGE in f.filename and HERE not in f.filename]
    shown = dict.fromkeys(f"{f.filename.rsplit(os.sep, 1)[-1]}:{f.lineno}" for f in ours[-2:])
    last = f"{frames[-1].filename.rsplit(os.sep, 1)[-1]}:{frames[-1].lineno}" if frames else "?"
    return " > ".join(dict.fromkeys((*shown, last)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]} ... {len(text)} in all"


def _memory() -> str | None:
    """Where files cost least."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Batch:
    """Inputs of a target that one process runs."""

    target: Target
    number: int
    count: int

    @property
    def name(self) -> str:
        """Of the file in which its tally is kept."""
        return f"{self.target.name}-{self.number:04d}-{self.count}"


def run_batches(
    batches: Sequence[Batch], out: Path, processes: int, silence: float = SILENCE
) -> dict[str, Tally]:
    """Tallies by target; batches whose tally lies in `out` are not run again."""
    out.mkdir(parents=True, exist_ok=True)
    waiting = [batch for batch in batches if not (out / f"{batch.name}.json").exists()]
    running: list[tuple[Batch, Any, Watched]] = []
    context = multiprocessing.get_context("fork")  # the imports are done once
    while waiting or running:
        while waiting and len(running) < processes:
            batch, watched = waiting.pop(0), Watched()
            process = context.Process(target=_run_batch, args=(batch, out, watched))
            process.start()
            running.append((batch, process, watched))
        time.sleep(0.02)
        running = [one for one in running if not _ended(*one, out, silence)]
    tallies: dict[str, Tally] = {}
    for batch in batches:
        values = json.loads((out / f"{batch.name}.json").read_text())
        tallies.setdefault(batch.target.name, Tally()).add(Tally(**values))
    return tallies


def _run_batch(batch: Batch, out: Path, watched: Watched) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _keep(run_inputs(batch.target, batch.count, batch.number, watched), out, batch)
    os._exit(0)


def _ended(batch: Batch, process: Any, watched: Watched, out: Path, silence: float) -> bool:
    """Whether a batch's process is gone; one that hangs is ended, one that died is noted."""
    hangs = _clock(process.pid) - watched.since.value > silence
    if process.is_alive() and not hangs:
        return False
    if process.is_alive():
        process.kill()
    process.join()
    if not (out / f"{batch.name}.json").exists():
        tally, given = Tally(inputs=1), watched.input.value.decode("utf-8", "replace")
        how = "hangs" if hangs else f"process lost, exit code {process.exitcode}"
        tally.finding(f"{how}: {batch.target.name}", f"batch {batch.name}", given)
        _keep(tally, out, batch)
    return True


def _keep(tally: Tally, out: Path, batch: Batch) -> None:
    temporary = out / f"{batch.name}.tmp"
    temporary.write_text(json.dumps(vars(tally)))
    temporary.replace(out / f"{batch.name}.json")


def table(tallies: dict[str, Tally]) -> str:
    """Markdown: a line per target, and their sum."""
    lines = [
        "| target | inputs | accepted | refused | other | over 5 s | longest refusal, characters | "
        "slowest, s | CPU ms per input | peak memory, MB |",
        "| --- |" + " ---: |" * 9,
    ]
    total = Tally()
    for name, tally in tallies.items():
        lines.append(_line(name, tally))
        total.add(tally)
    return "\n".join([*lines, _line("**sum**", total)])


def _line(name: str, t: Tally) -> str:
    return (
        f"| {name} | {t.inputs:,} | {t.accepted:,} | {t.refused:,} | {t.other:,} | {t.slow:,} | "
        f"{t.longest_message:,} | {t.slowest:.1f} | "
        f"{1000 * t.cpu_seconds / max(t.inputs, 1):.1f} | {t.peak_mb:,} |"
    )


def findings(tallies: dict[str, Tally]) -> str:
    """Every distinct ending that is no success and no refusal, most frequent first."""
    lines = [
        f"{name}: {found['count']} x {key}: {found['message']}\n    {found['input']}"
        for name, tally in tallies.items()
        for key, found in sorted(tally.endings.items(), key=lambda item: -item[1]["count"])
    ]
    return "\n".join(lines) or f"no other endings (Python {sys.version.split()[0]})"
