"""The cells of a benchmark on Ray: several at once, never two that build the same stage.

A cell is a Ray task that drives one run; its stages take their workers from the cluster as any
run's do. What is finished stays in the folder of stages, so a benchmark that was cut off goes on
where it was, and rows added later meet what is there.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pandas as pd
from rich.console import Console

from raysynth.benchmark.cells import LAST_STAGE, Cell, check_cells, plan_cells
from raysynth.benchmark.table import read_known
from raysynth.cluster.capacity import address_of
from raysynth.cluster.session import Session
from raysynth.config.benchmark import BenchmarkConfig
from raysynth.config.config import Config
from raysynth.endings import in_words
from raysynth.errors import DataError, RaysynthError
from raysynth.evaluation.kinds import REFERENCE_KINDS
from raysynth.jobs.cells import CELLS, RUNS
from raysynth.jobs.heartbeat import LONGEST_ERROR, Heartbeat
from raysynth.pace import duration
from raysynth.pipeline import run_pipeline
from raysynth.progress import Progress
from raysynth.storage.files import misfits, open_storage, read_record
from raysynth.terminal import clipped, masked

MAX_RETRIES = 2
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Finished:
    """All cells of a benchmark after it ran."""

    root: str
    """The benchmark's folder."""
    shared: str
    """Where its stages lie."""
    cells: list[Cell]
    failed: dict[str, str]
    """Cell name -> reason."""
    known: pd.DataFrame
    """Records of earlier parts, see `benchmark.records`."""
    settings: BenchmarkConfig
    """What its table compares: `baseline`, `by_validation`."""
    codes: dict[str, int] = field(default_factory=dict)
    """Failed cell's name -> what a command of its own would have ended with."""

    @property
    def name(self) -> str:
        """The benchmark's."""
        return self.root.rsplit("/", 1)[-1]

    @property
    def exit_code(self) -> int:
        """Of the command: raysynth's faults first, then what may be tried again, then refusals."""
        return next((code for code in (1, 3, 2) if code in self.codes.values()), 0)


@dataclass(frozen=True)
class Failure:
    """Why a cell failed, and the exit code that says whether it is worth another try."""

    reason: str
    code: int


@dataclass
class Board:
    """Which cells wait, which run, and which stages are there."""

    shared: str
    waiting: list[Cell]
    running: dict[Any, Cell] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    """Finished stage -> how long it took."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """For the status file, see `counts`."""

    def look(self) -> None:
        """List the finished stages; new ones count where their files are as their records say."""
        storage, path = open_storage(self.shared)
        storage.invalidate_cache()
        if storage.exists(path):
            names = (entry.rsplit("/", 1)[-1] for entry in storage.ls(path, detail=False))
            named = {name.removesuffix(".json") for name in names if name.endswith(".json")}
            self.done = {name for name in named if name in self.done or self._is_whole(name)}

    def _is_whole(self, name: str) -> bool:
        place = f"{self.shared}/{name}"
        with suppress(DataError):
            record = read_record(f"{place}.json", "digest")
            if isinstance(took := record.get("seconds"), int | float):
                self.seconds[name] = took
            return not misfits(place, record.get("sizes") or {})
        return False  # what a run that meets it makes again

    def missing(self, cell: Cell) -> frozenset[str]:
        """Stages that a cell would build."""
        return cell.folders - self.done

    def next(self) -> Cell | None:
        """The first cell that builds nothing which another one is building; taken from the list."""
        busy = frozenset().union(*(self.missing(cell) for cell in self.running.values()))
        for position, cell in enumerate(self.waiting):
            if not self.missing(cell) & busy:
                return self.waiting.pop(position)
        return None

    def left(self, at_once: int) -> float | None:
        """Seconds that the missing stages take if each takes what others of its kind have taken.

        None: of some kind there is none yet. `at_once`: cells that run beside each other.
        """
        ahead = [*self.waiting, *self.running.values()]
        missing = frozenset().union(*(self.missing(cell) for cell in ahead))
        took: dict[str, list[float]] = {}
        for name, seconds in self.seconds.items():
            took.setdefault(_kind(name), []).append(seconds)
        if any(_kind(name) not in took for name in missing):
            return None
        whole = sum(fmean(took[_kind(name)]) for name in missing)
        return whole / max(min(at_once, len(ahead)), 1)

    def counts(self, cells: int, failed: Mapping[str, Failure], at_once: int) -> dict[str, Any]:
        """What the status says: of all `cells`, those done, at work, waiting, failed; time left."""
        running = [cell.name for cell in self.running.values()]
        return {
            "total": cells,
            "done": cells - len(self.waiting) - len(running) - len(failed),
            "at_work": running,
            "waiting": len(self.waiting),
            "failed": {
                name: clipped(masked(failure.reason), LONGEST_ERROR)
                for name, failure in failed.items()
            },
            "left": self.left(at_once),
        }


def _kind(folder: str) -> str:
    """The kind of a stage, by its shared folder's name."""
    return folder.rpartition("-")[0]


def run_benchmark(
    config: Config, progress: Progress | None = None, *, finished_only: bool = False
) -> Finished:
    """Run every cell that is neither finished nor recorded; `finished_only`: none.

    Raises
    ------
    RaysynthError
        Something of the configuration cannot run; single cells that fail are returned instead.
    """
    root = config.root
    cells = plan_cells(config)
    board = Board(f"{config.storage_path.rstrip('/')}/stages", [])
    board.look()
    known = read_known(config.benchmark.records)
    board.waiting = cells_to_run(cells, board, known)
    failed: dict[str, Failure] = {}
    with progress or Progress() as display:
        stages = frozenset().union(*(cell.folders for cell in cells))
        waiting = f"{len(board.waiting)} cells are "
        display.say(
            f"{len(cells)} cells of {len(stages)} stages; {len(stages & board.done)} are there, "
            + (f"{waiting}missing, none is run" if finished_only else f"{waiting}to be run")
        )
        # The table of what is finished may be asked for while another driver runs the rest.
        if board.waiting and not finished_only:
            with Session(config, root) as session:
                session.hold(display)
                display.stage("benchmark")
                check_cells(board.waiting)
                board.told = board.counts(len(cells), {}, config.benchmark.concurrent)
                with Heartbeat(root, display, more=lambda: {CELLS: board.told}):
                    session.start()
                    failed = _run_cells(config, root, board, display, len(cells))
    reasons = {name: failure.reason for name, failure in failed.items()}
    codes = {name: failure.code for name, failure in failed.items()}
    return Finished(root, board.shared, cells, reasons, known, config.benchmark, codes)


def cells_to_run(cells: list[Cell], board: Board, known: pd.DataFrame) -> list[Cell]:
    """Cells that are neither finished nor recorded.

    References and controls that are recorded with another cell are not trained again.
    """
    recorded = set(known["cell"])
    told = set(known.loc[known["kind"].isin(REFERENCE_KINDS), "cell"])
    compared = {cell.references for cell in cells if cell.digest in told}

    def missing(cell: Cell) -> bool:
        return cell.digest not in recorded and bool(board.missing(cell))

    waiting = []
    for cell in cells:
        alone = cell.without_references if cell.references in compared else cell
        if missing(cell) and missing(alone):
            waiting.append(cell if cell.references in board.done else alone)
    return waiting


def _run_cells(
    config: Config, root: str, board: Board, progress: Progress, cells: int
) -> dict[str, Failure]:
    """Start cells as others end; why some failed, by name. `cells`: of the whole benchmark."""
    import ray

    # A cell only waits for its stages' workers: it must not take a core from them.
    task = ray.remote(num_cpus=0, max_retries=MAX_RETRIES)(run_cell)
    address = address_of(config.resources)
    failed: dict[str, Failure] = {}
    total, at_once = len(board.waiting), config.benchmark.concurrent
    stages = frozenset().union(*(cell.folders for cell in board.waiting))
    while board.waiting or board.running:
        board.look()
        while len(board.running) < at_once and (cell := board.next()):
            board.running[task.remote(cell, root, board.shared, address)] = cell
        board.told = board.counts(cells, failed, at_once)
        ended = total - len(board.waiting) - len(board.running)
        names = ", ".join(cell.name for cell in board.running.values())
        progress.update(
            f"{ended}/{total} cells, now {names}; stages", len(stages & board.done), len(stages)
        )
        finished, _ = ray.wait(list(board.running), num_returns=1, timeout=POLL_SECONDS)
        for reference in finished:
            cell = board.running.pop(reference)
            seconds, failure = _outcome(ray, reference)
            for line in _ending(cell.name, seconds, failure):
                progress.say(line)
            if failure:
                failed[cell.name] = failure
    board.look()
    board.told = board.counts(cells, failed, at_once)
    return failed


def run_cell(cell: Cell, root: str, shared: str, address: str) -> tuple[float, Failure | None]:
    """One run, inside a Ray task: its seconds, and why it failed, if it did.

    `address`: the driver's Ray; a worker has no RAY_ADDRESS, and would take any for a local one.
    """
    start = time.monotonic()
    resources = cell.config.resources.model_copy(update={"address": address})
    config = cell.config.model_copy(
        update={"storage_path": f"{root}/{RUNS}", "name": cell.name, "resources": resources}
    )
    silent = Progress(Console(file=io.StringIO()))
    try:
        with in_words(f"{root}/{RUNS}/{cell.name}"):
            run_pipeline(config, LAST_STAGE, silent, shared)
    except RaysynthError as error:
        return time.monotonic() - start, Failure(str(error), error.exit_code)
    return time.monotonic() - start, None


def _ending(name: str, seconds: float, failure: Failure | None) -> list[str]:
    """The lines that tell how a cell ended; a reason may have several."""
    if failure is None:
        return [f"✓ {name}: {duration(seconds)}"]
    first, *rest = failure.reason.splitlines() or [""]
    return [f"✗ {name}: {first}", *(f"  {line}" for line in rest)]


def _outcome(ray: Any, reference: Any) -> tuple[float, Failure | None]:
    try:
        with in_words():
            seconds, failure = ray.get(reference)
        return seconds, failure
    except RaysynthError as error:
        return 0.0, Failure(str(error), error.exit_code)
