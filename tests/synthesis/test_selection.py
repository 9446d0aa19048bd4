"""Selection against hand-worked scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raysynth.config import SelectionConfig
from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.synthesis.selection import select

GROUPS = Groups(("a", "b"), ("x",), ("a", "b"), ("x",))


def candidates(rows: list[tuple[str, int, float, float]]) -> pa.Table:
    ids, group, label, centroid = zip(*rows, strict=True)
    return pa.table(
        {
            "id": list(ids),
            "group": pa.array(group, pa.int32()),
            "clip_label": pa.array(label, pa.float32()),
            "clip_centroid": pa.array(centroid, pa.float32()),
        }
    )


TABLE = candidates(
    [
        ("g1-0", 1, 0.1, 0.9),
        ("g0-0", 0, 0.8, 0.0),
        ("g0-1", 0, 0.2, 0.4),
        ("g0-2", 0, 0.5, 0.5),
        ("g0-3", 0, 0.0, 0.2),
        ("g1-1", 1, 0.3, 0.1),
    ]
)


def kept(table: pa.Table) -> list[str]:
    return table.filter(table["kept"])["id"].to_pylist()


def test_scores_by_hand():
    half = select(TABLE, SelectionConfig(), GROUPS)
    assert np.allclose(half["score"].to_numpy(), [0.5, 0.4, 0.3, 0.5, 0.1, 0.2])
    quarter = select(TABLE, SelectionConfig(alpha=0.25), GROUPS)
    assert np.allclose(quarter["score"].to_numpy(), [0.7, 0.2, 0.35, 0.5, 0.15, 0.15])
    assert half["id"].to_pylist() == TABLE["id"].to_pylist()


def test_the_best_of_each_group_and_as_many_in_each():
    # 75 % of 4 is 3, of 2 is 2 (1.5 rounds to even): both keep 2.
    assert kept(select(TABLE, SelectionConfig(), GROUPS)) == ["g1-0", "g0-0", "g0-2", "g1-1"]
    assert kept(select(TABLE, SelectionConfig(alpha=0.0), GROUPS)) == [
        *("g1-0", "g0-1", "g0-2", "g1-1"),
    ]
    # Half of 2 is 1: group 0, which could keep 2, keeps 1 too.
    assert kept(select(TABLE, SelectionConfig(keep=0.5), GROUPS)) == ["g1-0", "g0-2"]


def test_equal_scores_are_decided_by_id():
    rows = [(f"g{g}-{i}", g, 0.5, 0.5) for g in (1, 0) for i in (3, 1, 2, 0)]
    assert sorted(kept(select(candidates(rows), SelectionConfig(keep=0.5), GROUPS))) == [
        *("g0-0", "g0-1", "g1-0", "g1-1"),
    ]


def test_a_group_without_candidates_is_refused():
    with pytest.raises(DataError, match=r"group\(s\) b/x.*Fix"):
        select(TABLE.filter(pa.compute.equal(TABLE["group"], 0)), SelectionConfig(), GROUPS)
