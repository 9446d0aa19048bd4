"""The method, stage by stage, in the order of the paper (Basu et al., arXiv 2511.08711).

Each stage is a function of its inputs' digest: unchanged, it is skipped; cut off, it goes on. Some
begin before their turn, see `raysynth.ahead`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from raysynth.ahead import Ahead
from raysynth.cluster.losses import Losses
from raysynth.cluster.session import Session
from raysynth.config.config import Config
from raysynth.config.ground import RunConfig
from raysynth.datasets.contents import source_digest
from raysynth.datasets.declared import INGEST
from raysynth.datasets.listing import few_measured, split_counts
from raysynth.errors import ConfigError, DamagedError, refusal_in
from raysynth.finetune.beginning import hashed
from raysynth.jobs.heartbeat import Heartbeat
from raysynth.log import Log, of_libraries
from raysynth.method import FOLDERS, nodes_of
from raysynth.metrics import STAGE_PROGRESS, WORKER_RESTARTS, add, put
from raysynth.models.hub import pinned
from raysynth.planning.preflight import (
    grouping_warnings,
    preflight,
    strange_lenders,
    warnings_of,
)
from raysynth.progress import Event, Progress
from raysynth.stages.course import Course
from raysynth.stages.graph import Contents, Node, no_contents, stage_kind
from raysynth.stages.run import CONFIG, Run
from raysynth.stages.stage import Done, Work, function
from raysynth.trackers.several import Trackers, open_trackers

C = TypeVar("C", bound=RunConfig)


def run_pipeline(
    config: Config,
    until: str | None = None,
    progress: Progress | None = None,
    shared: str | None = None,
) -> Run:
    """Photographs in, fair classifier and report out.

    Parameters
    ----------
    until : last stage to run (a key of FOLDERS); None: all.
    shared : folder or URI where runs of one experiment keep their stages; see `Run`.

    Raises
    ------
    RaysynthError
        The input cannot be run (before Ray starts where it can be known), or a stage failed.
    """
    return run_course(WHOLE, config, until, progress, shared)


def run_course(
    course: Course,
    config: C,
    until: str | None = None,
    progress: Progress | None = None,
    shared: str | None = None,
) -> Run:
    """Make what is not there of a command's stages; parameters and errors as `run_pipeline`."""
    if until is not None and until not in course.folders:
        raise ConfigError(f"until: got {until!r}, expected one of {', '.join(course.folders)}")
    config = hashed(pinned(config))
    root = config.root
    with progress or Progress() as display, Session(config, root) as session:
        run = open_run(config, shared, lambda: session.hold(display), course.folders)
        with Log(run.root, config.name) as log, of_libraries(log):
            display.log, display.meter = log, _meter
            run.say, run.held = lambda text: display.say(f"  {text}"), session.check
            session.losses = Losses(partial(_say_lost, display), partial(_keep_rays, log))
            _watched(course, run, session, display, until)
    return run


def _watched(
    course: Course, run: Run, session: Session, display: Progress, until: str | None
) -> None:
    """All stages up to one, seen from outside while they are made."""
    config, told = run.config, run.config.model_dump(mode="json")
    with (
        Heartbeat(run.root, display, until),
        open_trackers(config.trackers, run.root, config.name, told, run.say) as trackers,
    ):
        _whole(run, lambda: _Runner(course, config, run, session, display, trackers).go(until))


def _say_lost(display: Progress, told: str) -> None:
    """What was lost, what is kept, and that the user need not do anything."""
    add(WORKER_RESTARTS)
    kept = f"kept: {display.reached}; " if display.reached else ""
    display.say(f"  {told}; {kept}it goes on by itself", level="warning")


def _meter(stage: str, share: float) -> None:
    put(STAGE_PROGRESS, share, stage=stage)


def _keep_rays(log: Log, text: str) -> None:
    """What Ray said itself, for the log alone."""
    log.keep(Event("", f"Ray: {text}", "warning"))


def open_run(
    config: RunConfig,
    shared: str | None = None,
    hold: Callable[[], None] = lambda: None,
    folders: Mapping[str, str] = FOLDERS,
) -> Run:
    """The folder of a run, of the method unless `folders` are others'; for `hold` see `Run`."""
    return Run(config, folders, shared, hold)


def stage_digests(
    config: Config, until: str | None = None, folders: dict[str, str] | None = None
) -> dict[str, str]:
    """Stage -> digest of a run's stages, without running them: runs share what is equal.

    `folders`: path -> digest of data sets' folders that were read; the run's own is added.
    """
    contents = _contents({} if folders is None else folders)
    nodes = nodes_of(hashed(pinned(config, strict=False), strict=False), until, contents)
    return {node.name: node.digest for node in nodes}


def _contents(known: dict[str, str]) -> Contents:
    """What decides a stage besides its configuration: of ingest, what the files hold.

    `known`: path -> digest of folders that were read; more are added.
    """
    return lambda stage, config: source_digest(config.dataset, known) if stage is INGEST else {}


def _whole(run: Run, stages: Callable[[], None]) -> None:
    """Run the stages; where one meets a damaged file of an earlier one, that one makes it again.

    Sizes are compared before a stage is believed; a file of the same size and other content shows
    when it is read.
    """
    removed: set[str] = set()
    while True:
        try:
            return stages()
        except Exception as error:
            found = refusal_in(error)
            if not isinstance(found, DamagedError) or found.path in removed:
                raise
            if not run.drop(found.path):
                raise
            run.say(f"{str(found).partition(' Fix: ')[0]} Its stage makes it again")
            removed.add(found.path)


def _refused_first(config: Config) -> list[str]:
    """Refuse what cannot be run; warnings of what can."""
    groups, listing = preflight(config)
    counts = split_counts(listing, groups)
    lent = strange_lenders(config, groups, counts["train"])
    strange = grouping_warnings(config, groups)
    return [*warnings_of(config), *strange, *lent, *few_measured(counts, groups)]


WHOLE = Course(
    FOLDERS, nodes_of, _refused_first, lambda stage, config: _contents({})(stage, config), "report"
)
"""The method."""


class _Runner:
    """One pass over the stages of a run."""

    def __init__(
        self,
        course: Course,
        config: Any,
        run: Run,
        session: Session,
        progress: Progress,
        trackers: Trackers,
    ) -> None:
        self._course, self._config, self._run, self._session = course, config, run, session
        self._progress, self._trackers, self._checked = progress, trackers, False

    def go(self, last: str | None) -> None:
        """Make what is not there, in order."""
        self._progress.stage(next(iter(self._course.folders)))
        self._progress.update("content of the data set's files")
        nodes = self._course.nodes(self._config, last, self._course.contents)
        own = {node.name for node in self._course.nodes(self._config, None, no_contents)}
        self._run.name_only(own.__contains__)
        self._progress.stages, self._progress.made = [node.name for node in nodes], ()
        done: dict[str, Done] = {}
        with Ahead(self._progress) as ahead:
            for node in nodes:
                for early in (each for each in node.upstream.values() if each.name in ahead):
                    self._settle(early, ahead.take(early.name), done, nodes)
                if node.name not in ahead:
                    made = self._equal(node, done) or self._make(node, done, self._progress)
                    self._settle(node, made, done, nodes)
                ahead.check()
                self._begin(ahead, done, nodes)
            for early in (each for each in nodes if each.name in ahead):
                self._settle(early, ahead.take(early.name), done, nodes)

    def _begin(self, ahead: Ahead, done: Mapping[str, Done], nodes: Sequence[Node]) -> None:
        """Begin what may begin before its turn, and has all that it reads."""
        waiting = [node for node in nodes if node.name not in done and node.name not in ahead]
        for node in waiting[1:] if self._session.spare else ():
            if node.stage.early and all(each.name in done for each in node.upstream.values()):
                function(node.stage.build)  # imported here: two threads would meet in torch's parts
                ahead.begin(node.name, partial(self._make, node, dict(done)))

    def _settle(self, node: Node, made: Done, done: dict[str, Done], nodes: Sequence[Node]) -> None:
        """A stage is there, and what later ones cannot use of it is refused."""
        done[node.name] = made
        self._there(node)
        self._check_read(node, done, nodes)

    def _there(self, node: Node) -> None:
        """A stage is made, perhaps before its turn."""
        self._progress.made = list(dict.fromkeys([*self._progress.made, node.name]))

    def _equal(self, node: Node, done: Mapping[str, Done]) -> Done | None:
        """The same stage of the same digest: two generators, one model (`shared` and `edit`)."""
        same = [each for name, each in done.items() if stage_kind(name) == node.stage.name]
        return next((each for each in same if each.digest == node.digest), None)

    def _make(self, node: Node, done: Mapping[str, Done], progress: Progress) -> Done:
        def build(folder: str) -> dict[str, Any]:
            self._check_once()
            if node.stage.ray:
                progress.update("starting Ray")
                self._session.start()
                progress.update("")
            made = node.of(done)
            work = Work(node.config, folder, made, progress, self._trackers, self._run)
            facts: dict[str, Any] = function(node.stage.build)(work)
            return facts

        progress.stage(node.name)
        stage = self._run.stage(node.name, node.inputs, build)
        how = "unchanged" if stage.skipped else f"{stage.seconds:.1f} s"
        rows = f"{stage.facts['rows']:,} rows" if stage.facts.get("rows") is not None else ""
        told = {"skipped": stage.skipped, "seconds": round(stage.seconds, 1)}
        progress.say(f"{node.name:<15} {how:>10}  {rows}", "✓", "info", **told)
        self._there(node)
        _meter(node.name, 1.0)
        self._trackers.record(node.name, stage.facts | {"seconds": stage.seconds})
        if node.name == self._course.report and not stage.skipped:
            files = [f"{stage.path}/{name}" for name in ("index.html", "results.json")]
            self._trackers.artefacts([f"{self._run.root}/{CONFIG}", *files])
        return stage

    def _check_once(self) -> None:
        """All that can be refused before Ray starts; only when something has to be done."""
        if not self._checked:
            for warning in self._course.check(self._config):
                self._progress.say(f"  {warning}", level="warning")
            self._checked = True

    def _check_read(self, node: Node, done: Mapping[str, Done], nodes: Sequence[Node]) -> None:
        """What a later stage of this run cannot use is refused before hours go by."""
        checks = {each.stage.check_read.get(node.name): each.config for each in nodes}
        for check, config in checks.items():
            if check:
                function(check)(config, done[node.name].facts)
