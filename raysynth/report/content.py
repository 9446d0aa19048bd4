"""What the report is made from, read from the stages' folders into plain values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raysynth.classify.card import training_in_words
from raysynth.classify.verdict import verdict_of
from raysynth.errors import DataError
from raysynth.evaluation.kinds import KINDS, OURS
from raysynth.evaluation.results import INFERRED
from raysynth.groups.groups import Groups, aligned_groups
from raysynth.references.titles import title_of
from raysynth.report.fidelity import warning
from raysynth.stages.attempts import spent_of
from raysynth.stages.graph import stage_kind
from raysynth.stages.run import Run
from raysynth.stages.spending import Spent
from raysynth.storage.files import exists, read_json
from raysynth.storage.tables import SPLITS, groups_of, read_table, split_files, train_counts_of
from raysynth.synthesis.timeline import read_timeline

REMARKS = ("left_out", "repeated")
"""Facts of ingest that are words."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds: mean, standard deviation, and each seed's own."""

    mean: float
    std: float
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A classifier's test accuracies (shares of 1); `groups` in the order of the group index."""

    name: str
    title: str
    wga: Spread
    aga: Spread
    weighted: Spread
    groups: tuple[Spread, ...]
    validation: float  # mean WGA on validation
    chosen: dict[str, Any]
    kind: str  # a key of KINDS
    uses_validation: bool  # it trained on validation images
    pretrained: bool  # its trainings started from weights that knew something
    synthetic: str  # mixtures: their synthetic images, in words
    equalized_odds: Spread
    demographic_parity: Spread
    interval: dict[str, tuple[float, float]]  # wga, aga: 95 %, over the test images

    @property
    def tags(self) -> tuple[str, ...]:
        """What a table says beside its name."""
        trains = "trains on validation images" if self.uses_validation else ""
        start = "pretrained start" if self.pretrained else ""
        return tuple(filter(None, (KINDS[self.kind].tag, self.synthetic, start, trains)))


@dataclass(frozen=True)
class Measured:
    """The groups of the test images, and [G] the training images of each."""

    groups: Groups
    counts: np.ndarray


@dataclass(frozen=True)
class Content:
    """Everything that the page and results.json say, except the images."""

    config: Any  # the run's
    groups: Groups
    counts: dict[str, np.ndarray]  # split -> [G] real images, of test in the measured groups
    measured: Measured  # the same groups, unless a grouping method found those of training
    aligned: tuple[int, ...]  # the bias-aligned group of every label
    clusters: dict[tuple[int, int], int]  # (group, cluster) -> training images
    candidates: np.ndarray  # [G] generated images
    kept: np.ndarray  # [G] of them, those selected
    selection: dict[str, Any]  # the selection stage's facts
    fidelity: dict[str, Any]  # the stage's facts; none: an earlier version's run
    audits: dict[str, dict[str, Any]]  # generator -> facts of the audit of its images
    adapters: list[dict[str, Any]]
    trials: pd.DataFrame
    best: dict[str, Any]
    results: dict[str, Any]  # the classification stage's, as written
    methods: tuple[Method, ...]
    timings: dict[str, float]  # stage -> seconds, this report's own not included
    spent: dict[str, Spent]  # the same stages: memory and energy; nothing of earlier versions'
    timeline: pa.Table  # spans of the generating actors, see synthesis.timeline
    generation: dict[str, Any]  # the synthesis stage's facts
    grouping: dict[str, Any]  # the facts of the stage that found the groups; none: they are given
    manifest: dict[str, Any]
    order: tuple[str, ...]  # of the method's stages

    @property
    def is_regrouped(self) -> bool:
        """Whether test is in other groups than training: those that the data set gives."""
        return self.measured.groups != self.groups

    @property
    def inferred(self) -> str:
        """A sentence where not even the test images' groups are known; empty where they are."""
        return INFERRED if self.measured.groups.found else ""

    @property
    def found(self) -> dict[str, Any]:
        """What the grouping method says of the groups it found, see `grouping.stage`."""
        return dict(self.grouping.get("found", {}))

    @property
    def shares_known(self) -> bool:
        """Whether it is known how many training images are in the groups of test."""
        known = self.found.get("known", 0) == self.counts["train"].sum()
        return bool(known or not self.found or self.measured.groups.found)

    def of_classes(self, method: Method) -> tuple[float, ...]:
        """A method's mean test accuracy of every class: its groups' by their test images."""
        groups, counts = self.measured.groups, self.counts["test"]
        return tuple(
            float(np.average([method.groups[g].mean for g in own], weights=counts[list(own)]))
            for own in map(groups.of_label, range(len(groups.label_names)))
        )

    @property
    def copies(self) -> np.ndarray:
        """[G] generated images that were rejected as copies of training images."""
        counts = self.selection["copies"]
        return np.array([sum(counts[name].values()) for name in self.groups.names])

    @property
    def shipped(self) -> dict[str, Any] | None:
        """Which method's classifier the run ships, why, and the `words` for it."""
        counts = self.counts["validation"].tolist()
        return verdict_of(self.results, dict(zip(self.groups.names, counts, strict=True)))

    @property
    def model(self) -> Method | None:
        """The method whose classifier the run ships."""
        found = self.shipped
        return next((m for m in self.methods if found and m.name == found["name"]), None)

    @property
    def unfaithful(self) -> str:
        """A sentence on images that do not show their label; empty without any."""
        return warning(self.fidelity, self.config.selection.on_unfaithful)

    @property
    def remarks(self) -> dict[str, str]:
        """What ingest has to say of the images: those left out, those that are there twice."""
        return {key: str(self._ingest.get(key) or "") for key in REMARKS}

    @property
    def doubles(self) -> str:
        """A sentence on validation images that stand in training too; empty without any."""
        # On demand: the last lines of a run need no torch.
        from raysynth.selection.copies import said_of_duplicates

        return said_of_duplicates(self.selection.get("validation_in_training", {}))

    @property
    def _ingest(self) -> dict[str, Any]:
        return dict(self.manifest["stages"].get("ingest", {}).get("facts", {}))

    @property
    def training(self) -> str:
        """How raysynth's own classifier was trained; empty if nothing is searched yet."""
        if "parameters" not in self.best:
            return ""
        return training_in_words(self.config.classifier, self.best["parameters"])

    @property
    def ours(self) -> Method | None:
        """raysynth's own."""
        return next((method for method in self.methods if method.name == OURS), None)

    @property
    def best_reference(self) -> Method | None:
        """The real-only reference with the highest mean WGA on test: the strictest comparison.

        Those that train on validation images know more than raysynth's classifier does.
        """
        known = [method for method in self.methods if method.kind == "reference"]
        references = [method for method in known if not method.uses_validation]
        return max(references, key=lambda method: method.wga.mean, default=None)


def read_content(config: Any, run: Run) -> Content:
    """Read what the earlier stages of a run left, without any image."""
    manifest = run.manifest()
    folders = {name: run.folder(name) for name in manifest["stages"] if name in run.folders}
    before = {name: stage for name, stage in manifest["stages"].items() if name != "report"}
    groups, counts, measured = _real_groups(run.real)
    clusters = read_table(
        folders["clustering"], files=[f"{folders['clustering']}/clusters.parquet"]
    )
    selection = read_table(folders["selection"], ["group", "kept"])
    made, kept = selection["group"].to_numpy(), selection["kept"].to_numpy()
    results = read_json(f"{folders['classification']}/results.json") or {}
    return Content(
        config=config,
        groups=groups,
        counts=counts,
        measured=measured,
        aligned=tuple(int(g) for g in aligned_groups(counts["train"], groups)),
        clusters=_cluster_sizes(clusters["group"].to_pylist(), clusters["cluster"].to_pylist()),
        candidates=np.bincount(made, minlength=groups.count),
        kept=np.bincount(made[kept.astype(bool)], minlength=groups.count),
        selection=dict(manifest["stages"]["selection"]["facts"]),
        fidelity=dict(manifest["stages"].get("fidelity", {}).get("facts", {})),
        audits=_audits(manifest["stages"], config.generator),
        adapters=_adapters(folders.get("finetune")),
        trials=_read_trials(f"{folders['search']}/trials.parquet"),
        best=read_json(f"{folders['search']}/best.json") or {},
        results=results,
        methods=tuple(
            _method(name, values, measured.groups, config)
            for name, values in ordered_methods(results)
        ),
        timings={name: stage["seconds"] for name, stage in before.items()},
        spent={name: spent_of(stage.get("spent")) for name, stage in before.items()},
        timeline=read_timeline(folders["synthesis"]),
        generation=dict(manifest["stages"].get("synthesis", {}).get("facts", {})),
        grouping=dict(manifest["stages"].get("grouping", {}).get("facts", {})),
        manifest=manifest,
        order=tuple(run.folders),
    )


def _audits(stages: Mapping[str, Any], generator: str) -> dict[str, dict[str, Any]]:
    """Generator -> facts of its audit; `generator`: of the stage that names none."""
    return {
        name.partition("/")[2] or generator: dict(stage["facts"])
        for name, stage in stages.items()
        if stage_kind(name) == "audit"
    }


def _adapters(folder: str | None) -> list[dict[str, Any]]:
    """Records of what was trained; None: several generators have folders of their own."""
    return (read_json(f"{folder}/adapters.json") or []) if folder else []


def _real_groups(real: str) -> tuple[Groups, dict[str, np.ndarray], Measured]:
    """Groups of the training images, images of every split in the groups of that split, test's."""
    found, counts = {}, {}
    for split in SPLITS:
        table = read_table(real, ["group"], split_files(real, split))
        found[split] = table.schema
        many = groups_of(table.schema).count
        counts[split] = np.bincount(table["group"].to_numpy(), minlength=many)
    known = train_counts_of(found["test"])
    own = counts["train"] if known is None else known
    return groups_of(found["train"]), counts, Measured(groups_of(found["test"]), own)


def ordered_methods(results: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """By kind, in the order of KINDS, and as the configuration names them; raysynth last."""
    order = {kind: position for position, kind in enumerate(KINDS)}
    methods = results.get("methods", {}).items()
    last = len(order)
    return sorted(methods, key=lambda item: (item[0] == OURS, order.get(item[1]["kind"], last)))


def starts_pretrained(config: Any, kind: str) -> bool:
    """Whether trainings of a kind of `KINDS` start pretrained; controls train no network of it."""
    if kind == "control":
        return False
    of_kind = config.for_references() if kind == "reference" else config
    return of_kind.classifier.starts_pretrained


def synthetic_images(values: Mapping[str, Any], generator: str) -> str:
    """Whose images a mixture of results.json trained on, and how many of those it asks for."""
    if not (found := values.get("synthetic")):
        return ""
    wanted, used = found["wanted"], found["used"]
    return f"{used:,} {f'of {wanted:,} ' * (used < wanted)}{generator} images"


def _method(name: str, values: Mapping[str, Any], groups: Groups, config: Any) -> Method:
    return Method(
        name=name,
        title=title_of(name),
        wga=_spread(values["wga"], f"{name}: wga"),
        aga=_spread(values["aga"], f"{name}: aga"),
        weighted=_spread(values["weighted"], f"{name}: weighted"),
        groups=_group_spreads(values["groups"], groups, name),
        validation=_spread(values["validation"]["wga"], f"{name}: validation wga").mean,
        chosen=dict(values["chosen"]),
        kind=values["kind"],
        uses_validation=bool(values["uses_validation"]),
        pretrained=starts_pretrained(config, values["kind"]),
        synthetic=synthetic_images(values, config.generator),
        equalized_odds=_spread(values["equalized_odds"]),
        demographic_parity=_spread(values["demographic_parity"]),
        interval={key: tuple(bounds) for key, bounds in values["interval"].items()},
    )


def _spread(values: Mapping[str, Any], measured: str = "") -> Spread:
    """NaN where there is none; `measured`: the name of a number that there must be."""
    seeds = tuple(math.nan if value is None else float(value) for value in values["seeds"])
    mean, std = (math.nan if values[k] is None else float(values[k]) for k in ("mean", "std"))
    if measured and not all(map(math.isfinite, (mean, std, *seeds))):
        raise _broken(f"{measured} is {values['mean']!r} of {list(values['seeds'])}")
    return Spread(mean, std, seeds)


def _group_spreads(values: Mapping[str, Any], groups: Groups, method: str) -> tuple[Spread, ...]:
    if missing := [name for name in groups.names if name not in values]:
        raise _broken(f"{method} has no accuracy of group(s) {', '.join(missing)}")
    return tuple(_spread(values[name], f"{method}: group {name}") for name in groups.names)


def _broken(what: str) -> DataError:
    return DataError(
        f"results.json of the classification stage: {what}; expected a number for every group. "
        "Fix: delete the run's classification folder and run again"
    )


def _cluster_sizes(group: list[int], cluster: list[int]) -> dict[tuple[int, int], int]:
    return dict(sorted(Counter(zip(group, cluster, strict=True)).items()))


def _read_trials(path: str) -> pd.DataFrame:
    return read_table(path, files=[path]).to_pandas() if exists(path) else pd.DataFrame()
