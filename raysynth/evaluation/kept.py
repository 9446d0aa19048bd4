"""The final classifiers of a finished run, found again among the trainings that it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raysynth.errors import DataError
from raysynth.evaluation.final import Final
from raysynth.storage.files import read_json, read_record, sizes_below
from raysynth.terminal import masked
from raysynth.training.plan import told


def final_of(folder: str, method: str, row: Mapping[str, Any], seed: int) -> Final:
    """One seed of a method's final classifier, from its row in results.json.

    Rows name their trainings (`units`); those of earlier versions do not, and the training is known
    by what the row says of it: its plan, its stopping point and its validation scores.

    Parameters
    ----------
    folder : folder or URI of the trainings of the stage that measured the method; seed : index.

    Raises
    ------
    DataError
        The training is not there any more, or is none of the row's.
    """
    head = str(row["chosen"]["head"])
    if named := row.get("units"):
        record = read_record(f"{folder}/{named[seed]}.json", "plan", "best", kind=dict)
        return Final(method, record, head)
    for record in _records(folder):
        if _is_of(record, row, head, seed):
            return Final(method, record, head)
    raise DataError(
        f"{masked(folder)}: no training of {method}, seed {seed}; expected one as its row in "
        "results.json says. Fix: run again under another name; what this run kept is not whole"
    )


def _records(folder: str) -> Iterator[dict[str, Any]]:
    """The records of all trainings that are kept, in the order of their names."""
    for file in sizes_below(folder):
        if file.endswith(".json"):
            record = read_json(f"{folder}/{file}")
            if isinstance(record, dict):
                yield record


def _is_of(record: Mapping[str, Any], row: Mapping[str, Any], head: str, seed: int) -> bool:
    """Whether a record is of the training that a row's seed is."""
    try:
        best, plan, chosen = record["best"][head], record["plan"], row["chosen"]
        scores = [row["validation"][key]["seeds"][seed] for key in ("wga", "aga")]
        return bool(
            plan["seed"] == seed
            and best["step"] == chosen["stopped_at"][seed]
            and [best["validation"]["wga"], best["validation"]["aga"]] == scores
            and all(chosen.get(key) == value for key, value in told(plan).items())
        )
    except (KeyError, IndexError, TypeError):  # another head's, or another version's plan
        return False
