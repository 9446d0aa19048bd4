"""auto: what is looked at before it chooses."""

from __future__ import annotations

import numpy as np

from raysynth.selection.probe import PROBED, _probed


def test_the_probe_looks_at_every_cluster():
    """Images lie by group, and within one by cluster: thirds of 300 images here."""
    rows = _probed(np.repeat([0, 1], [900, 30]))
    assert (rows < 900).sum() <= PROBED and (rows >= 900).sum() == 30
    by_cluster = np.bincount(rows[rows < 900] // 300)
    assert len(by_cluster) == 3 and by_cluster.min() == by_cluster.max() >= 50
