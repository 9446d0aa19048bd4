"""How sure the found groups are, and how they lie to those that the data set knows.

What is known of attributes is compared after the method has decided; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.grouping.method import KNOWN, POSTERIOR
from raysynth.groups.groups import UNKNOWN, Groups
from raysynth.storage.tables import read_table, split_files, write_table

FOUND_FILE = "groups.parquet"
FOUND = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int32()),
        ("attribute", pa.int32()),
        ("group", pa.int32()),
        ("split", pa.string()),
        (KNOWN, pa.bool_()),
        ("confidence", pa.float32()),
        (POSTERIOR, pa.list_(pa.float32())),
    ]
)
"""`posterior`: [A] how sure the method is of each attribute; `confidence`: of the found one.
`known`: the data set gives it."""
UNSURE = 0.9
"""Confidence below which an image's group counts as unsure."""


def known_test(real: str, groups: Groups) -> bool:
    """Whether the data set gives every test image one of two attributes or more."""
    if len(groups.attribute_names) < 2:
        return False
    table = read_table(real, ["attribute"], split_files(real, "test"))
    return bool((table["attribute"].to_numpy() != UNKNOWN).all())


def write_found(
    path: str, real: str, splits: Sequence[str], rows: pa.Table, groups: Groups
) -> dict[str, Any]:
    """Write FOUND of the images of `splits`, sorted by id.

    Returns
    -------
    `confidence`: group name -> mean over training images; `unsure`: group name -> share of them
    below UNSURE.
    """
    files = [file for split in splits for file in split_files(real, split)]
    table = read_table(real, ["id", "label", "split"], files).sort_by("id")
    places = pc.index_in(table["id"], value_set=rows["id"].combine_chunks())
    for name in ("attribute", POSTERIOR):
        table = table.append_column(name, rows[name].take(places))
    told = rows[KNOWN].take(places) if KNOWN in rows.column_names else None
    label, attribute = table["label"].to_numpy(), table["attribute"].to_numpy()
    posterior = np.array(table[POSTERIOR].to_pylist(), np.float32)
    confidence = posterior[np.arange(len(posterior)), attribute]
    group = label * len(groups.attribute_names) + attribute
    columns = {name: table[name] for name in ("id", "label", "attribute", "split", POSTERIOR)}
    columns |= {"group": pa.array(group), "confidence": pa.array(confidence)}
    columns[KNOWN] = pa.array(np.zeros(len(table), bool)) if told is None else told
    found = [columns[field.name].cast(field.type) for field in FOUND]
    write_table(pa.table(found, schema=FOUND), path)
    train = np.asarray(table["split"].to_pylist()) == "train"
    of_group = [confidence[train & (group == g)] for g in range(groups.count)]
    named = dict(zip(groups.names, of_group, strict=True))
    return {
        "confidence": {name: _mean(values) for name, values in named.items()},
        "unsure": {name: _mean(values < UNSURE) for name, values in named.items()},
    }


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def compared(
    real: str, groups: Groups, found: Groups, attribute_of: Callable[[pa.ChunkedArray], np.ndarray]
) -> dict[str, Any]:
    """How the found groups of the training images lie to the data set's own, where it knows them.

    Returns
    -------
    `known`: training images whose attribute the data set knows; `own`: name of the data set's group
    -> name of a found one -> images; neither where the data set knows no attributes.
    """
    if len(groups.attribute_names) < 2:
        return {}
    table = read_table(real, ["id", "label", "group"], split_files(real, "train"))
    group = table["group"].to_numpy()
    if not (group != UNKNOWN).any():
        return {}
    width = len(found.attribute_names)
    mine = table["label"].to_numpy() * width + attribute_of(table["id"])
    rows = {
        name: np.bincount(mine[group == g], minlength=found.count)
        for g, name in enumerate(groups.names)
    }
    return {
        "known": int((group != UNKNOWN).sum()),
        "own": {
            name: {found.names[f]: int(counts[f]) for f in np.flatnonzero(counts)}
            for name, counts in rows.items()
        },
    }
