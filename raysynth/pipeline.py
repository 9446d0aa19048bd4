"""The method, stage by stage, in the order of the paper (Basu et al., arXiv 2511.08711).

Each stage is a function of its inputs' digest: unchanged, it is skipped; cut off, it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from raysynth.cluster.session import Session
from raysynth.config.config import Config
from raysynth.errors import ConfigError, DamagedError, refusal_in
from raysynth.generators.inputs import synthesis_inputs, training_inputs
from raysynth.generators.recipe import AUTO, candidates
from raysynth.groups.groups import Groups
from raysynth.knobs import decides
from raysynth.models.hub import pinned
from raysynth.networks.settings import searched_knobs, shared_knobs
from raysynth.planning.preflight import preflight, warnings_of
from raysynth.progress import Progress
from raysynth.references.settings import CONTROLS, mixtures_rates
from raysynth.stages.run import FOLDERS, Run, Stage, stage_digest, stage_kind

# Knobs that change how wide a stage runs, not what comes out of it.
WIDTH = {
    "clustering": {"batch_size", "actors"},
}

# Knobs that came later, and the value at which a stage does what it did without them: they are left
# out there, so that what earlier versions made is still what it was.
LATER: dict[str, dict[str, Any]] = {
    "dataset": {"aligned": None, "max_megapixels": 64.0},
    "clustering": {"encoder_revision": None},
}

# Raised when the same files are read as other rows: images ingested before are read again.
READING = 3


def run_pipeline(
    config: Config,
    until: str | None = None,
    progress: Progress | None = None,
    shared: str | None = None,
) -> Run:
    """Photographs in, fair classifier and report out.

    Parameters
    ----------
    until : last stage to run (a key of `runs.FOLDERS`); None: all.
    shared : folder or URI where runs of one experiment keep their stages; see `Run`.

    Raises
    ------
    RaysynthError
        The input cannot be run (before Ray starts where it can be known), or a stage failed.
    """
    if until is not None and until not in FOLDERS:
        raise ConfigError(f"until: got {until!r}, expected one of {', '.join(FOLDERS)}")
    config = pinned(config)
    run = Run(config, shared)
    with progress or Progress() as display, Session(config, run.root) as session:
        run.say = lambda text: display.say(f"  {text}")
        _run_whole(run, lambda: _Pipeline(config, run, session, display).run(until))
    return run


def _run_whole(run: Run, stages: Callable[[], None]) -> None:
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


def stage_digests(
    config: Config, until: str | None = None, folders: dict[str, str] | None = None
) -> dict[str, str]:
    """Stage -> digest of a run's stages, without running them: runs share what is equal.

    `folders`: path -> digest of data sets' folders that were read; the run's own is added.
    """
    pipeline = _Pipeline(pinned(config, strict=False), folders=folders)
    pipeline.run(until)
    return {name: stage.digest for name, stage in pipeline.done.items()}


class _Pipeline:
    """One pass over the stages; holds what every stage needs. Without a run it only plans."""

    def __init__(
        self,
        config: Config,
        run: Run | None = None,
        session: Session | None = None,
        progress: Progress | None = None,
        folders: dict[str, str] | None = None,
    ) -> None:
        self.config, self.progress = config, progress or Progress()
        self._folders = {} if folders is None else folders
        self._run, self._session = run, session
        self.done: dict[str, Stage] = {}
        self.checked = False
        # Several generators leave a variant of their stages each; one leaves the stage itself.
        self.variants = (
            {f"/{each.generator}": each for each in candidates(config)}
            if config.generator == AUTO
            else {"": config}
        )

    def run(self, until: str | None) -> None:
        for name in FOLDERS:
            getattr(self, f"_{name}")()
            if name == "ingest" and self._trains_classifiers(until):
                from raysynth.datasets.listing import check_sides

                check_sides(self.config.classifier, self.done["ingest"].facts.get("sides", ()))
            if name == until:
                return

    def _trains_classifiers(self, until: str | None) -> bool:
        order, first = list(FOLDERS), "synthesis" if self.config.generator == AUTO else "references"
        return until is None or order.index(until) >= order.index(first)

    def _ingest(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.datasets.ingest import ingest

            return ingest(self.config, work, self.progress)

        self.progress.stage("ingest")
        self.progress.update("content of the data set's files")
        inputs = {"dataset": self._knobs("dataset"), "seed": self.config.seed}
        self._stage("ingest", inputs | _source_digest(self.config, self._folders), build)

    def _clustering(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.clustering.stage import run_clustering

            return run_clustering(
                self.config, self._path("ingest"), self.groups, work, self.progress
            )

        self._stage(
            "clustering",
            self._after("ingest")
            | {"knobs": self._knobs("clustering"), "clip": self._base("clip")},
            build,
        )

    def _finetune(self) -> None:
        for variant, config in self.variants.items():

            def build(work: str, config: Config = config) -> dict[str, Any]:
                from raysynth.finetune.stage import run_finetune

                real, clusters = self._path("ingest"), self._path("clustering")
                return run_finetune(config, real, clusters, self.groups, work, self.progress)

            base = {"base": self._base("name", "revision", "dtype")}
            inputs = self._after("clustering") | training_inputs(config) | base
            self._stage(f"finetune{variant}", inputs, build)

    def _synthesis(self) -> None:
        for variant, config in self.variants.items():

            def build(work: str, config: Config = config, variant: str = variant) -> dict[str, Any]:
                from raysynth.synthesis.stage import run_synthesis

                counts = np.asarray(self.done["ingest"].facts["counts"]["train"])
                return run_synthesis(
                    config,
                    self._path("ingest"),
                    self._path(f"finetune{variant}"),
                    self._path("clustering"),
                    self.groups,
                    counts,
                    work,
                    self.progress,
                )

            inputs = self._after(f"finetune{variant}") | synthesis_inputs(config)
            self._stage(f"synthesis{variant}", inputs, build)

        if self.config.generator == AUTO:
            self._candidate_selections()
            self._choice()

    def _choice(self) -> None:
        """`generator: auto`: a generator per group; its images are the run's synthetic table."""

        def build(work: str) -> dict[str, Any]:
            from raysynth.selection.by_validation import run_choice

            return run_choice(
                self.config, self._path("ingest"), self._made(), self.groups, work, self.progress
            )

        after = {"after": {v: self.done[f"selection{v}"].digest for v in self.variants}}
        real = {"real": self.done["ingest"].digest, "classifier": searched_knobs(self.config)}
        search = self._knobs("search")
        heads = {"heads": search["head_weight_decays"], "clip": self._base("clip")}
        if shares := search.get("head_real_shares"):
            heads["shares"] = shares
        self._stage("synthesis", after | real | heads, build)

    def _candidate_selections(self) -> None:
        for variant in self.variants:
            self._select(variant)

    def _selection(self) -> None:
        if self.config.generator != AUTO:
            self._select("")
            return

        def build(work: str) -> dict[str, Any]:
            from raysynth.selection.by_validation import choose_selection

            chosen = list(self.done["synthesis"].facts["chosen"].values())
            parts = {v.strip("/"): self.done[f"selection{v}"].facts for v in self.variants}
            return choose_selection(self._made(), chosen, parts, self.groups, work)

        self._stage("selection", self._after("synthesis"), build, ray=False)

    def _select(self, variant: str) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.selection.stage import run_selection

            clusters, synthetic = self._path("clustering"), self._path(f"synthesis{variant}")
            return run_selection(self.config, clusters, synthetic, self.groups, work, self.progress)

        inputs = self._after(f"synthesis{variant}") | {"knobs": self._knobs("selection")}
        self._stage(f"selection{variant}", inputs, build)

    def _made(self) -> dict[str, Any]:
        """Generator -> its images, of all candidates."""
        from raysynth.selection.by_validation import Made

        return {
            variant.strip("/"): Made(
                self._path(f"synthesis{variant}"), self._path(f"selection{variant}")
            )
            for variant in self.variants
        }

    def _references(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.references.stage import run_references

            real = self._path("ingest")
            return run_references(self.config, real, self.groups, work, self.progress)

        controls = self.config.references.controls
        own = {name: value for name, value in self._knobs("references").items() if name != "start"}
        knobs = {"knobs": own, "classifier": shared_knobs(self.config)}
        uses_clip = any(CONTROLS[name].uses_clip for name in controls)
        clip = {"clip": self._base("clip")} if uses_clip else {}
        self._stage("references", self._after("ingest") | knobs | clip, build)

    def _search(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.search.stage import run_search

            return run_search(
                self.config,
                self._path("ingest"),
                self._path("synthesis"),
                self._path("selection"),
                self.groups,
                work,
                self.progress,
            )

        knobs = {"knobs": self._knobs("search"), "classifier": searched_knobs(self.config)}
        self._stage("search", self._after("ingest", "selection") | knobs, build)

    def _classification(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.classify.stage import run_classification

            return run_classification(
                self.config,
                self._path("ingest"),
                self._path("synthesis"),
                self._path("selection"),
                self._path("search"),
                self._path("references"),
                self.groups,
                work,
                self.progress,
            )

        knobs = {"knobs": self._knobs("classifier")}
        self._stage("classification", self._after("search", "references") | knobs, build)

    def _report(self) -> None:
        def build(work: str) -> dict[str, Any]:
            from raysynth.report.stage import run_report

            assert self._run is not None, "planning builds nothing"
            return run_report(self.config, self._run, work, self.progress)

        self._stage(
            "report", self._after(*self.done) | {"name": self.config.name}, build, ray=False
        )

    def _stage(
        self,
        name: str,
        inputs: dict[str, Any],
        build: Callable[[str], dict[str, Any]],
        *,
        ray: bool = True,
    ) -> None:
        digest, kind = stage_digest(name, inputs), stage_kind(name)
        same = [s for n, s in self.done.items() if stage_kind(n) == kind]
        if equal := [stage for stage in same if stage.digest == digest]:
            self.done[name] = equal[0]  # two generators, one model: `shared` and `edit`
            return
        if self._run is None or self._session is None:
            self.done[name] = Stage(name, "", digest, 0.0, {}, True)
            return
        session = self._session

        def prepared(work: str) -> dict[str, Any]:
            self._check_once()
            if ray:
                self.progress.update("starting Ray")
                session.start()
                self.progress.update("")
            return build(work)

        self.progress.stage(name)
        stage = self._run.stage(name, inputs, prepared)
        self.done[name] = stage
        how = "unchanged" if stage.skipped else f"{stage.seconds:.1f} s"
        rows = f"{stage.facts['rows']:,} rows" if stage.facts.get("rows") is not None else ""
        self.progress.say(f"{name:<15} {how:>10}  {rows}", mark="✓")

    def _check_once(self) -> None:
        """All that can be refused before Ray starts; only when something has to be done."""
        if not self.checked:
            from raysynth.datasets.listing import few_measured, split_counts

            groups, listing = preflight(self.config)
            few = few_measured(split_counts(listing, groups), groups)
            for warning in [*warnings_of(self.config), *few]:
                self.progress.say(f"  {warning}")
            self.checked = True

    @property
    def groups(self) -> Groups:
        return Groups.from_dict(self.done["ingest"].facts["groups"])

    def _path(self, stage: str) -> str:
        return self.done[stage].path

    def _after(self, *stages: str) -> dict[str, Any]:
        """Digests of earlier stages; a variant's name says nothing of its content."""
        return {"after": {stage_kind(name): self.done[name].digest for name in stages}}

    def _knobs(self, section: str) -> dict[str, Any]:
        config = self.config
        if section == "selection":
            return decides(config.selection)
        if section in ("search", "references"):
            return decides(getattr(config, section).settled(config.classifier))
        if section == "classifier":
            return decides(config.classifier.settled()) | mixtures_rates(config)
        knobs: dict[str, Any] = getattr(config, section).model_dump(
            mode="json", exclude=WIDTH.get(section, set())
        )
        later = LATER.get(section, {})
        return {k: value for k, value in knobs.items() if k not in later or value != later[k]}

    def _base(self, *names: str) -> dict[str, Any]:
        """Knobs of `base`; a CLIP's hub revision with its name."""
        pinned = self.config.base.clip_revision
        revision = {"clip_revision": pinned} if "clip" in names and pinned else {}
        return {name: getattr(self.config.base, name) for name in names} | revision


def _source_digest(config: Config, folders: dict[str, str]) -> dict[str, Any]:
    """What identifies data outside the package: the files' content, and how it is read."""
    if config.dataset.name == "outfits":
        return {}
    from raysynth.datasets.contents import folder_digest
    from raysynth.datasets.files import reaching

    path = str(config.dataset.path)
    if path not in folders:
        with reaching(path):
            folders[path] = folder_digest(path)
    return {"metadata": folders[path], "reading": READING}
