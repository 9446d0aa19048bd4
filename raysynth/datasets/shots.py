"""Few shots: as many training images of every group as asked for, and no more."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raysynth.errors import DataError
from raysynth.groups.balance import drawn_rows
from raysynth.groups.groups import Groups


def few_shots(listing: pa.Table, groups: Groups, shots: int, seed: int) -> pa.Table:
    """A listing with `shots` training images of each group, drawn by seed; other splits stay whole.

    More shots contain the fewer ones of the same seed. `listing`: columns group, split.

    Raises
    ------
    DataError
        A group has fewer training images.
    """
    train = np.asarray(listing["split"].to_pylist()) == "train"
    group = listing["group"].to_numpy()[train]
    counts = np.bincount(group, minlength=groups.count)
    least = int(counts.argmin())
    if counts[least] < shots:
        raise DataError(
            f"dataset.shots={shots}: {groups.name(least)} has {counts[least]} training images; "
            f"expected at least {shots} of every group. Fix: dataset.shots={max(1, counts[least])} "
            "or fewer, a lower dataset.severity, or more images of that group"
        )
    kept = drawn_rows(group, np.full(groups.count, shots), seed)
    rows = np.concatenate([np.flatnonzero(train)[kept], np.flatnonzero(~train)])
    return listing.take(np.sort(rows))
