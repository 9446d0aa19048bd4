"""attribution.parquet: what each audited image owes to which group; and the table of all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.storage.tables import read_table, write_table

FILE = "attribution.parquet"
ATTRIBUTION = pa.schema(
    [("id", pa.string()), ("scores", pa.list_(pa.float32())), ("top", pa.int32())]
)
"""`scores`: [G], null where the image can owe nothing; `top`: the group that it owes most."""


def top_of(scores: np.ndarray) -> np.ndarray:
    """[N] the group of the largest of [N, G] scores, the first of equal ones; NaN is none."""
    top: np.ndarray = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return top


def write_attribution(ids: pa.ChunkedArray, scores: np.ndarray, folder: str) -> None:
    """Write ATTRIBUTION of images [N] and their scores [N, G]."""
    rows = [[None if np.isnan(one) else float(one) for one in row] for row in scores]
    columns = [ids.combine_chunks(), rows, top_of(scores)]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, ATTRIBUTION, strict=True)]
    write_table(pa.table(arrays, schema=ATTRIBUTION), f"{folder}/{FILE}")


def read_leaks(folder: str, images: pa.Table) -> np.ndarray:
    """[N] whether images, id and group, owe another group most than that; DataError: not audited.

    `folder`: the stage's folder or URI.
    """
    table = read_table(folder, ["id", "top"], [f"{folder}/{FILE}"])
    places = pc.index_in(images["id"], value_set=table["id"].combine_chunks())
    if places.null_count:
        raise DataError(
            f"{FILE}: nothing of {places.null_count} of {len(places)} candidates; expected all. "
            "Fix: audit.images_per_group=null"
        )
    top = table["top"].take(places).to_numpy()
    leaks: np.ndarray = top != images["group"].to_numpy()
    return leaks


def asked_and_top(asked: np.ndarray, top: np.ndarray, groups: Groups) -> dict[str, dict[str, int]]:
    """Name of the group that was asked for -> of the one that is owed most -> images."""
    names = groups.names
    counts = np.zeros((groups.count, groups.count), np.int64)
    np.add.at(counts, (asked, top), 1)
    return {
        names[g]: dict(zip(names, row, strict=True))
        for g, row in enumerate(counts.tolist())
        if any(row)
    }


def own_share(table: dict[str, Any]) -> float:
    """Share of the images that owe most to the group they were asked for."""
    total = sum(sum(row.values()) for row in table.values())
    return round(sum(row[name] for name, row in table.items()) / max(1, total), 4)
