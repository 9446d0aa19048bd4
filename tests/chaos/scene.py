"""What a moment is made of: its run, the drivers that make it, and what was seen of them."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raysynth.method import FOLDERS
from tests.chaos.comparing import compare
from tests.chaos.driver import Driver, said
from tests.chaos.following import Follower, WentOn
from tests.chaos.miniature import NAME, PROGRAM, Reference, command, environment

STARTS = 4
"""How often the same command is given at most."""
ORDERLY = frozenset((0, 3, 130, 143, -9))
"""Exit codes of a command that ended well, is to be given again, was told to stop, was killed."""
LEAST, MOST = 0.02, 0.95
"""Of a stage's work: where a moment lies."""


@dataclass(frozen=True)
class Moment:
    """A harm and when it is done: a function of its name alone."""

    fault: str
    stage: str
    number: int
    seed: int

    @property
    def dice(self) -> random.Random:
        """The moment's own random numbers."""
        return random.Random(f"{self.seed}/{self.fault}/{self.stage}/{self.number}")


@dataclass
class Record:
    """What came of a moment."""

    fault: str
    stage: str
    number: int
    seed: int
    fraction: float = 0.0
    """Of the stage's work that was to be done when harm was."""
    harm: str = ""
    """What was done to whom."""
    things: int = 0
    equal: int = 0
    lost: int = 0
    doubled: int = 0
    differ: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    before: float = 0.0
    """Units of work that were done when harm was."""
    after: float = 0.0
    """Units that were done at the first sign of work after it."""
    seconds: float | None = None
    """From the harm, or the next start of the command, to that sign."""
    took: float = 0.0
    """Seconds of the whole moment."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of the command, start by start."""
    said: str = ""
    foreign: int = 0
    """Lines that are Ray's or Python's own."""
    problem: str = ""
    """Why the moment is not a trial: harm that was not done, a time limit, a fault of the suite."""

    @property
    def well(self) -> bool:
        """Whether nothing was lost, doubled or changed, and the command came to its end."""
        same = self.equal == self.things and not (self.lost or self.doubled or self.stray)
        ended = self.codes[-1:] == [0] and ORDERLY.issuperset(self.codes)
        return not self.problem and same and ended


class MissedError(Exception):
    """The stage ended before harm could be done."""


class Scene:
    """One moment: a run before its stage, and the commands that are given."""

    def __init__(
        self,
        moment: Moment,
        reference: Reference,
        folder: Path,
        server: Callable[[], int],
        limit: float,
    ) -> None:
        """`folder`: an empty one for the run; `server`: starts S3 once, gives its port.

        `limit`: seconds of a command.
        """
        self.reference, self.folder, self.server, self.limit = reference, folder, server, limit
        self.stage, self.until, self.dice = moment.stage, moment.stage, moment.dice
        self.record = Record(**asdict(moment))
        self.fraction = self.record.fraction = self.dice.uniform(LEAST, MOST)
        self.storage = str(folder)
        self.more: list[str] = []
        """Settings besides the miniature's."""
        self.environment: dict[str, str] = {}
        self.texts: list[str] = []
        self.open = ExitStack()
        self.scratch = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # Ray's sockets: short
        self.open.callback(shutil.rmtree, self.scratch, ignore_errors=True)

    @property
    def run(self) -> Path:
        """The run's folder on this machine."""
        return self.folder / NAME

    @property
    def facts(self) -> dict[str, float]:
        """The reference's, of the stage."""
        return self.reference.facts(self.stage)

    def begin(self) -> Path:
        """Lay down the run as it was before the stage; its folder."""
        return self.reference.start(self.stage, self.folder)

    def driver(self, program: str = PROGRAM) -> Driver:
        """Start the command once more."""
        log = self.scratch / f"said-{len(self.record.codes)}.txt"
        given = command(self.storage, self.until, *self.more, program=program)
        started = environment(self.scratch, self.environment)
        return Driver(given, started, log, self.limit)

    def wait_for_work(self, driver: Driver, harm: Callable[[], bool] = lambda: True) -> WentOn:
        """Until the moment's share of the work is done and `harm` could be done.

        Raises MissedError when the driver ends before.
        """
        follower = Follower(self.run, self.stage)
        target = max(1.0, self.fraction * self.facts["units"])
        if not driver.until(lambda: follower.look() >= target and harm()):
            self.ended(driver)
            raise MissedError(f"{follower.done:.0f} of {target:.0f} units seen")
        went_on = WentOn(follower, time.monotonic())
        self.record.before = went_on.before
        return went_on

    def ended(self, driver: Driver) -> None:
        """Note how a driver ended."""
        assert driver.code is not None
        self.record.codes.append(driver.code)
        self.texts.append(driver.text)

    def went_on(self, found: WentOn) -> None:
        """Note when work was done again, unless that is known."""
        if self.record.seconds is None and found.seconds is not None:
            self.record.seconds, self.record.after = found.seconds, found.after

    def again(self) -> None:
        """The same command until it comes to its end, or `STARTS` times."""
        while self.record.codes[-1:] != [0] and len(self.record.codes) < STARTS:
            with self.driver() as driver:
                found = WentOn(Follower(self.run, self.stage), driver.begun)
                driver.end(found.look)
                self.ended(driver)
                self.went_on(found)

    def compare(self, run: Path | None = None) -> None:
        """The outputs of the stage, and of the last one that was asked for."""
        for stage in dict.fromkeys((self.stage, self.until)):
            folder = FOLDERS[stage]
            found = compare((run or self.run) / folder, self.reference.after(stage) / folder)
            for name in ("things", "equal", "lost", "doubled"):
                setattr(self.record, name, getattr(self.record, name) + getattr(found, name))
            self.record.differ += [f"{folder}/{name}" for name in found.differ]
            self.record.stray += [f"{folder}/{name}" for name in found.stray]
        usual = "\n".join(self.reference.said(stage) for stage in (self.stage, self.until))
        self.record.said, self.record.foreign = said(self.texts, usual)
