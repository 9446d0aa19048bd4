"""Who is kept: the best candidates of every group by CLIP score, as many in each group.

Basu et al. (arXiv 2511.08711): CLIP-Score = alpha * CLIP-Label + (1 - alpha) * CLIP-Centroid, the
top 75 % are kept. The cosines enter raw, as in the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysynth.config import Config, SelectionConfig
from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.progress import Progress
from raysynth.synthesis.score import combine
from raysynth.synthesis.shards import read_shards
from raysynth.tables import write_table

SELECTION = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.int32()),
        ("score", pa.float32()),
        ("kept", pa.bool_()),
    ]
)


def run_selection(
    config: Config, synthetic: str, groups: Groups, work: str, progress: Progress
) -> dict[str, Any]:
    """Score and select the candidates of a synthetic table; writes work/selection.parquet.

    Returns
    -------
    Facts: rows, kept (in all), kept_per_group, threshold {group name: lowest score kept}.
    """
    progress.update("candidates selected")
    columns = ["id", "group", "clip_label", "clip_centroid"]
    candidates = read_shards(synthetic, columns)
    table = select(candidates, config.selection, groups)
    write_table(table, f"{work}/selection.parquet")
    kept = table.filter(table["kept"])
    group, score = kept["group"].to_numpy(), kept["score"].to_numpy()
    return {
        "rows": table.num_rows,
        "kept": kept.num_rows,
        "kept_per_group": kept.num_rows // groups.count,
        "threshold": {
            groups.name(g): round(float(score[group == g].min()), 4) for g in range(groups.count)
        },
    }


def select(candidates: pa.Table, config: SelectionConfig, groups: Groups) -> pa.Table:
    """The selection table of candidates (id, group, clip_label, clip_centroid), in their order.

    Every group keeps its best `keep` share, then all keep as many as the smallest of these: stage
    1 trains on a group-balanced set. Equal scores are decided by id.

    Raises
    ------
    DataError
        If a group has no candidate.
    """
    group = candidates["group"].to_numpy()
    score = combine(
        candidates["clip_label"].to_numpy(), candidates["clip_centroid"].to_numpy(), config.alpha
    )
    counts = np.bincount(group, minlength=groups.count)
    if counts.min() == 0:
        empty = ", ".join(groups.name(g) for g in range(groups.count) if counts[g] == 0)
        raise DataError(
            f"selection: no synthetic image of group(s) {empty}; expected candidates of "
            "every group. Fix: run the synthesis stage again"
        )
    size = min(kept_of(int(count), config.keep) for count in counts)
    best = np.lexsort((candidates["id"].to_numpy(zero_copy_only=False), -score, group))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(group), np.int64)
    rank[best] = np.arange(len(group)) - first[group[best]]
    return pa.table([candidates["id"], candidates["group"], score, rank < size], schema=SELECTION)


def kept_of(count: int, keep: float) -> int:
    """Images kept of `count`: the share, rounded, at least one."""
    return max(1, round(count * keep))
