"""The run that harm is done to: a miniature of all stages, and the state of it before each.

A reference is built once, stage by stage, and kept after each; a moment starts from a copy in which
the stages before its own are finished, and costs its stage and a restart.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from raysynth.cluster.local import LOCAL_ENVIRONMENT
from tests.test_pipeline import MINIATURE, USUAL

ROOT = Path(__file__).resolve().parents[2]
STAGES = tuple(USUAL)
NAME = "mini"
SETTINGS = (
    *MINIATURE,
    "resources.workers=1",
    "clustering.actors=1",
    "clustering.batch_size=16",
    "finetune.steps=24",
    "finetune.checkpoint_steps=4",
    "synthesis.actors=1",
    "synthesis.images_per_group=32",
    "synthesis.batch_size=4",
    "synthesis.rows_per_shard=8",
    "references.names=[erm, erm_balanced_head]",
    "search.trials=3",
    "search.concurrent=1",  # which of two trials ends first, a busy moment decides
)
PROGRAM = "import sys; from raysynth.cli import job; job(until=sys.argv.pop(1))"
"""As the scripts in jobs/: `raysynth run` that ends after a stage."""
COUNTING = (
    """
import atexit, os, signal, sys
root, last, note = (os.environ[f"CHAOS_{name}"] for name in ("ROOT", "LAST", "NOTE"))
last, count, writes = int(last), 0, os.O_WRONLY | os.O_RDWR | os.O_CREAT
def changes(event, given):
    if event == "open":
        return (given[2] or 0) & writes
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
def hook(event, given):
    global count
    if changes(event, given) and str(given[0]).startswith(root):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
atexit.register(lambda: open(note, "w").write(str(count)))
"""
    + PROGRAM
)
"""The same, which counts its own changes to files of the run and may die before one of them."""


def counted(run: Path, note: Path, last: int) -> dict[str, str]:
    """The environment of COUNTING: dies before change `last` (0: never), writes the count."""
    return {"CHAOS_ROOT": str(run), "CHAOS_LAST": str(last), "CHAOS_NOTE": str(note)}


def command(storage: str, stage: str, *more: str, program: str = PROGRAM) -> list[str]:
    """The command that makes a run below `storage` up to a stage."""
    return [sys.executable, "-c", program, stage, f"storage_path={storage}", *SETTINGS, *more]


def environment(scratch: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    """Of a driver whose Ray keeps its files below `scratch`."""
    own = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # beside other work Ray's workers would starve
        "RAY_TMPDIR": str(scratch),
        "COLUMNS": "200",
    }
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", *LOCAL_ENVIRONMENT)
    }
    return {**inherited, **own, **(more or {})}


def work_folder(run: Path, stage: str) -> Path | None:
    """Where a stage is being made."""
    found = sorted((run / ".partial").glob(f"{stage}-*"))
    return found[-1] if found else None


class Reference:
    """An undisturbed run below a folder, as it was after each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "reference"

    def after(self, stage: str) -> Path:
        """The run's folder after a stage."""
        return self.folder / stage / NAME

    def before(self, stage: str) -> Path | None:
        """The run's folder before a stage; None: it is the first."""
        place = STAGES.index(stage)
        return self.after(STAGES[place - 1]) if place else None

    def facts(self, stage: str) -> dict[str, float]:
        """What was measured while a stage was made: see `harness.build`."""
        return json.loads((self.folder / stage / "facts.json").read_text())

    def said(self, stage: str) -> str:
        """What the driver said while a stage was made."""
        return (self.folder / stage / "said.txt").read_text()

    def missing(self, last: str) -> list[str]:
        """The stages up to `last` that are not there yet."""
        until = STAGES[: STAGES.index(last) + 1]
        return [stage for stage in until if not (self.folder / stage / "facts.json").exists()]

    def keep(self, stage: str, run: Path, said: str, facts: dict[str, float]) -> None:
        """Keep a run's folder as it is after a stage; the facts last."""
        place = self.folder / stage
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copytree(run, place / NAME)
        (place / "said.txt").write_text(said)
        (place / "facts.json").write_text(json.dumps(facts))

    def start(self, stage: str, storage: Path) -> Path:
        """A run below `storage` in which the stages before `stage` are finished; its folder."""
        run = storage / NAME
        shutil.rmtree(run, ignore_errors=True)
        storage.mkdir(parents=True, exist_ok=True)
        if before := self.before(stage):
            shutil.copytree(before, run)
        return run
