"""Copies of training images among the generated ones: what counts as one, and how many there are.

A fine-tuned model may repeat what it was trained on, small clusters and long trainings most of all
(Somepalli et al., CVPR 2023, arXiv 2212.03860; Carlini et al., 2023, arXiv 2301.13188). The actor
writes each image's most similar training image of its class (`clustering.neighbours`). Here an
image that is more similar than real images of the group are that nobody can have copied, the
validation images, is called a copy. The rule and its quantile are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.clustering.embed import NEIGHBOURS_FILE
from raysynth.errors import DataError
from raysynth.groups.groups import Groups
from raysynth.selection.settings import SelectionConfig
from raysynth.storage.tables import read_table

QUANTILE = 0.99
"""Share of a group's validation images that are not called copies: the rule's false alarms are
about one in a hundred."""
NEVER = np.float32(np.inf)
DUPLICATE = np.float32(0.999)
"""Similarity from which a validation image is a training image: the same picture, but for rounding.
It says nothing of how near images come that are no copies."""


def read_neighbours(clusters: str) -> pa.Table:
    """The validation images' nearest training images, as the clustering stage found them."""
    return read_table(clusters, files=[f"{clusters}/{NEIGHBOURS_FILE}"])


def copy_thresholds(
    config: SelectionConfig, neighbours: pa.Table, groups: Groups
) -> NDArray[np.float32]:
    """[G] similarity above which an image of the group is a copy; infinite: none is.

    With `selection.copy_threshold=auto` it is the `QUANTILE` of the similarities of the group's
    validation images. Where more of these stand in training too than lie beyond the quantile
    anyway, it is taken without them: with them it would be 1, and no image a copy. A group of
    which none is left takes the quantile of all groups together; without any, an image is a copy
    from `DUPLICATE` on.

    Parameters
    ----------
    neighbours : table `clustering.neighbours.NEIGHBOURS`.

    Raises
    ------
    DataError
        If auto is asked for and a group has no validation image, or the table is broken.
    """
    if config.copy_threshold is None:
        return np.full(groups.count, NEVER)
    if config.copy_threshold != "auto":
        return np.full(groups.count, config.copy_threshold, np.float32)
    group, similarity = _measured(neighbours)
    empty = [groups.name(g) for g in range(groups.count) if not (group == g).any()]
    if empty:
        raise DataError(
            f"selection.copy_threshold=auto: no validation image of group(s) {', '.join(empty)}; "
            "expected some of every group, to know how near images come that are no copies. Fix: "
            "a number, e.g. selection.copy_threshold=0.9, or null"
        )
    limits = [_limit(similarity[group == g]) for g in range(groups.count)]
    if None in limits:
        new = similarity[similarity < DUPLICATE]
        rest = np.quantile(new, QUANTILE) if len(new) else DUPLICATE
        limits = [rest if limit is None else limit for limit in limits]
    return np.array(limits, np.float32)


def _limit(similarity: NDArray[np.float32]) -> np.floating[Any] | None:
    """The `QUANTILE`, without duplicates where they would decide it; None where none is left."""
    new = similarity < DUPLICATE
    if 1 - new.mean() > 1 - QUANTILE:
        similarity = similarity[new]
    return np.quantile(similarity, QUANTILE) if len(similarity) else None


def duplicates(config: SelectionConfig, neighbours: pa.Table, groups: Groups) -> NDArray[np.int64]:
    """[G] validation images that stand in training too, as far as they were to calibrate `auto`."""
    if config.copy_threshold != "auto":
        return np.zeros(groups.count, np.int64)
    group, similarity = _measured(neighbours)
    return np.bincount(group[similarity >= DUPLICATE], minlength=groups.count)


def said_of_duplicates(counts: Mapping[str, int]) -> str:
    """A sentence on `duplicates`, by group name; empty without any."""
    found = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
    if not found:
        return ""
    return (
        f"{sum(counts.values()):,} validation image(s) stand in training too ({found}): what "
        "validation says is too good, and where it is more than one in a hundred of a group, the "
        "threshold of copies is taken without them. Fix: take the same pictures out of one split"
    )


def _measured(neighbours: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Groups and similarities of the validation images; refuses similarities that are no number."""
    group, similarity = neighbours["group"].to_numpy(), neighbours["similarity"].to_numpy()
    if not np.isfinite(similarity).all():
        raise DataError(
            f"{NEIGHBOURS_FILE}: the similarity of {(~np.isfinite(similarity)).sum()} validation "
            "image(s) is no number; expected cosines. Fix: delete the clustering stage's folder of "
            "the run and run again; where it comes again, base.dtype=float32"
        )
    return group, similarity


def is_copy(
    similarity: NDArray[np.float32], group: NDArray[np.int32], limits: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """[N] which images of similarities and groups [N] are copies, by thresholds [G]."""
    copies: NDArray[np.bool_] = similarity > limits[group]
    return copies


def per_cluster(
    chosen: NDArray[np.bool_], group: NDArray[np.int32], cluster: NDArray[np.int32], groups: Groups
) -> dict[str, dict[str, int]]:
    """Chosen images by group name and cluster."""
    return {
        name: {
            str(k): int(chosen[(group == g) & (cluster == k)].sum())
            for k in np.unique(cluster[group == g]).tolist()
        }
        for g, name in enumerate(groups.names)
    }


def spoken_limits(limits: NDArray[np.float32], groups: Groups) -> dict[str, Any]:
    """Thresholds by group name; None: no image is a copy."""
    return {
        name: round(float(limits[g]), 4) if np.isfinite(limits[g]) else None
        for g, name in enumerate(groups.names)
    }
