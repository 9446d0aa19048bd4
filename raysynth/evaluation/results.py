"""results.json and predictions.parquet: what a stage says of every method it measured on test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.evaluation.final import Final
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import bootstrap_interval, fairness, group_metrics, over_seeds
from raysynth.knobs import digest_of
from raysynth.storage import tables
from raysynth.storage.files import read_record, write_atomic
from raysynth.training.plan import told

SELECTION_RULE = (
    "validation worst-group accuracy, ties by the average over groups, chooses every setting, head "
    "and stopping point; test images are used once, by the final classifiers"
)
INFERRED = (
    "no attribute of the test images is known, so their groups were inferred as those of the "
    "training images were: WGA, AGA and the accuracy of a group are of inferred groups, and say "
    "nothing sure of the true ones; the accuracies of the classes are measured"
)
"""What is said wherever accuracies of found groups are (`Groups.found` of the test images)."""
PREDICTIONS = pa.schema(
    [
        ("method", pa.string()),
        ("seed", pa.int32()),
        ("id", pa.string()),
        ("predicted", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Truth:
    """ids [M], label [M] and group [M] of the test images; counts [G] of the training images."""

    ids: list[str]
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    counts: NDArray[np.int64]
    groups: Groups

    def measures(self, predicted: NDArray[Any]) -> dict[str, Any]:
        """All numbers of one classifier."""
        found = group_metrics(predicted, self.label, self.group, self.counts).to_dict(self.groups)
        attribute = self.group % len(self.groups.attribute_names)
        return found | fairness(predicted, self.label, attribute)


def read_truth(real: str, counts: NDArray[np.int64], groups: Groups) -> Truth:
    """What is true of the test images below the folder or URI `real`; no pixel is read.

    counts [G] of training images, groups: the run's. Test images that a grouping method left in the
    data set's own groups are measured in these.
    """
    table = tables.read_table(real, ["id", "label", "group"], tables.split_files(real, "test"))
    own = tables.train_counts_of(table.schema)
    if own is not None:
        counts, groups = own, tables.groups_of(table.schema)
    label, group = (table[name].to_numpy().astype(np.int64) for name in ("label", "group"))
    return Truth(table["id"].to_pylist(), label, group, counts, groups)


def measured(
    truth: Truth, predicted: Sequence[NDArray[Any]], validation: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A method's numbers over its seeds: predictions [M] and validation metrics of each."""
    right = np.stack([one == truth.label for one in predicted])
    return {
        **over_seeds([truth.measures(one) for one in predicted]),
        "interval": bootstrap_interval(right, truth.group),
        "validation": over_seeds(list(validation)),
    }


def trained(finals: Sequence[Final]) -> dict[str, Any]:
    """A method's trainings, those of all its seeds: what was chosen, and which they are.

    `units` names each seed's among those that its stage keeps; with the head of `chosen` it is the
    classifier that was measured (`raysynth.evaluation.kept`).
    """
    return {
        "chosen": _chosen(finals),
        "training_seconds": [final.record["seconds"] for final in finals],
        "units": [digest_of(final.record["plan"]) for final in finals],
    }


def _chosen(finals: Sequence[Final]) -> dict[str, Any]:
    """What validation chose for a method."""
    tuned = [final.tuned for final in finals]
    own = {key: [one.get(key) for one in tuned] for key in tuned[0]}
    return {
        **told(finals[0].record["plan"]),
        "head": finals[0].head,
        "stopped_at": [final.step for final in finals],
        **own,
    }


def predictions(truth: Truth, named: Sequence[tuple[str, int, NDArray[Any]]]) -> pa.Table:
    """The test predictions of (method, seed, predicted [M]); intervals follow from them."""
    parts = [
        pa.table(
            {
                "method": [method] * len(truth.ids),
                "seed": np.full(len(truth.ids), seed),
                "id": truth.ids,
                "predicted": predicted,
            }
        ).cast(PREDICTIONS)
        for method, seed, predicted in named
    ]
    return pa.concat_tables(parts) if parts else PREDICTIONS.empty_table()


def write_results(work: str, report: dict[str, Any], table: pa.Table) -> None:
    """results.json and predictions.parquet below `work`."""
    tables.write_table(table, f"{work}/predictions.parquet")
    write_atomic(f"{work}/results.json", json.dumps(report, indent=1).encode())


def read_results(folder: str) -> tuple[dict[str, Any], pa.Table]:
    """Inverse of `write_results`.

    Raises
    ------
    DataError
        When results.json is not there, cut, or another file.
    """
    table = tables.read_table(folder, files=[f"{folder}/predictions.parquet"])
    return read_record(f"{folder}/results.json", "methods", "tuning", kind=dict | list), table
