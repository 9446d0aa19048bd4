"""Copies of training images among the generated ones: what counts as one, and how many there are.

A fine-tuned model may repeat what it was trained on, small clusters and long trainings most of all
(Somepalli et al., CVPR 2023, arXiv 2212.03860; Carlini et al., 2023, arXiv 2301.13188). The actor
writes each image's most similar training image of its class (`clustering.neighbours`). Here an
image that is more similar than real images of the group are that nobody can have copied, the
validation images, is called a copy. The rule and its quantile are ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.clustering.embed import NEIGHBOURS_FILE
from raysynth.config import SelectionConfig
from raysynth.errors import DataError
from raysynth.groups import Groups
from raysynth.tables import read_table

QUANTILE = 0.99
"""Share of a group's validation images that are not called copies: the rule's false alarms are
about one in a hundred."""
NEVER = np.float32(np.inf)


def read_neighbours(clusters: str) -> pa.Table:
    """The validation images' nearest training images, as the clustering stage found them."""
    return read_table(clusters, files=[f"{clusters}/{NEIGHBOURS_FILE}"])


def copy_thresholds(
    config: SelectionConfig, neighbours: pa.Table, groups: Groups
) -> NDArray[np.float32]:
    """[G] similarity above which an image of the group is a copy; infinite: none is.

    With `selection.copy_threshold=auto` it is the `QUANTILE` of the similarities of the group's
    validation images.

    Parameters
    ----------
    neighbours : table `clustering.neighbours.NEIGHBOURS`.

    Raises
    ------
    DataError
        If auto is asked for and a group has no validation image.
    """
    if config.copy_threshold is None:
        return np.full(groups.count, NEVER)
    if config.copy_threshold != "auto":
        return np.full(groups.count, config.copy_threshold, np.float32)
    group, similarity = neighbours["group"].to_numpy(), neighbours["similarity"].to_numpy()
    empty = [groups.name(g) for g in range(groups.count) if not (group == g).any()]
    if empty:
        raise DataError(
            f"selection.copy_threshold=auto: no validation image of group(s) {', '.join(empty)}; "
            "expected some of every group, to know how near images come that are no copies. Fix: "
            "a number, e.g. selection.copy_threshold=0.9, or null"
        )
    return np.array(
        [np.quantile(similarity[group == g], QUANTILE) for g in range(groups.count)], np.float32
    )


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
        groups.name(g): {
            str(k): int(chosen[(group == g) & (cluster == k)].sum())
            for k in np.unique(cluster[group == g]).tolist()
        }
        for g in range(groups.count)
    }


def spoken_limits(limits: NDArray[np.float32], groups: Groups) -> dict[str, Any]:
    """Thresholds by group name; None: no image is a copy."""
    return {
        groups.name(g): round(float(limits[g]), 4) if np.isfinite(limits[g]) else None
        for g in range(groups.count)
    }
