"""What every method said of every test image: differences, kinds of errors, what is misread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raysynth.evaluation.kinds import OURS
from raysynth.evaluation.paired import Difference, paired_differences
from raysynth.groups.groups import Groups
from raysynth.stages.run import Run
from raysynth.storage.files import exists
from raysynth.storage.tables import groups_of, read_table, split_files


@dataclass(frozen=True)
class Rates:
    """Errors of one group (label, attribute), shares of 1, means over seeds; NaN: no such image.

    `missed`: of its images, those called another label (false negatives of the label). `false`: of
    the attribute's images of other labels, those called this one (false positives). `called`: of
    all images of the attribute, those called this label (the selection rate).
    """

    missed: float
    false: float
    called: float


@dataclass(frozen=True)
class Misread:
    """A test image that most seeds of a method call wrong: `called` by `seeds` of `of`."""

    id: str
    group: int
    called: int
    seeds: int
    of: int


@dataclass(frozen=True)
class Tested:
    """ids [N], label and group [N] of the test images; method -> [S, N] predicted labels."""

    ids: tuple[str, ...]
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    groups: Groups
    predicted: Mapping[str, NDArray[np.int64]]

    def right(self, method: str) -> NDArray[np.bool_]:
        """[S, N] whether each seed is right."""
        found: NDArray[np.bool_] = self.predicted[method] == self.label
        return found

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Method -> raysynth's WGA and AGA minus its own; nothing without raysynth's."""
        if OURS not in self.predicted:
            return {}
        ours = self.right(OURS)
        return {
            name: paired_differences(ours, self.right(name), self.group)
            for name in self.predicted
            if name != OURS
        }

    def rates(self, method: str) -> list[Rates]:
        """[G] of every group."""
        width = len(self.groups.attribute_names)
        found = []
        for g in range(self.groups.count):
            label, attribute = divmod(g, width)
            there = self.group % width == attribute
            called = self.predicted[method] == label
            own, others = there & (self.label == label), there & (self.label != label)
            found.append(
                Rates(1 - _mean(called[:, own]), _mean(called[:, others]), _mean(called[:, there]))
            )
        return found

    def misread(self, method: str) -> list[Misread]:
        """Those that most seeds of a method call wrong, by group, most seeds first."""
        predicted = self.predicted[method]
        wrong = (~self.right(method)).sum(axis=0)
        found = []
        for n in np.flatnonzero(2 * wrong > len(predicted)):
            own = int(self.label[n])
            others = predicted[predicted[:, n] != own, n]
            called = int(np.bincount(others).argmax())
            found.append(
                Misread(self.ids[n], int(self.group[n]), called, int(wrong[n]), len(predicted))
            )
        return sorted(found, key=lambda one: (one.group, -one.seeds, one.id))


def read_tested(run: Run) -> Tested | None:
    """Of a run's classification; None where it kept no predictions."""
    path = f"{run.folder('classification')}/predictions.parquet"
    if not exists(path):
        return None
    real = run.real
    truth = read_table(real, ["id", "label", "group"], split_files(real, "test"))
    ids = truth["id"].to_pylist()
    place = {identity: n for n, identity in enumerate(ids)}
    frame = read_table(path.rsplit("/", 1)[0], files=[path]).to_pandas()
    frame["place"] = frame["id"].map(place)
    predicted = {}
    for name, rows in frame.groupby("method", sort=False):
        table = rows.pivot(index="seed", columns="place", values="predicted")
        predicted[str(name)] = table.sort_index().to_numpy().astype(np.int64)
    label, group = (truth[name].to_numpy().astype(np.int64) for name in ("label", "group"))
    return Tested(tuple(ids), label, group, groups_of(truth.schema), predicted)


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")
