"""Paired differences on predictions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.evaluation.paired import paired_differences

GROUP = np.repeat([0, 1], 100)


def _right(*shares: float, seeds: int = 3) -> np.ndarray:
    """[S, 200], the first of each group right."""
    row = np.concatenate([np.arange(100) < round(100 * share) for share in shares])
    return np.tile(row, (seeds, 1))


def test_equal_methods_do_not_differ_at_all():
    one = _right(0.9, 0.6)
    found = paired_differences(one, one, GROUP)
    assert all([d.mean, d.low, d.high] == pytest.approx([0, 0, 0]) for d in found.values())


def test_means_are_the_differences_of_the_methods():
    found = paired_differences(_right(0.9, 0.8), _right(0.7, 0.6), GROUP)
    assert found["wga"].mean == pytest.approx(0.2) and found["aga"].mean == pytest.approx(0.2)
    assert 0.08 < found["wga"].low < 0.2 < found["wga"].high < 0.32


def test_what_both_misread_leaves_no_trace():
    """Two that agree on nearly all images are told apart where two of other images are not."""
    one, nested = _right(0.9, 0.6), _right(0.9, 0.55)
    other = np.concatenate([np.tile(np.arange(100) >= 45, (3, 1))], axis=1)
    apart = np.concatenate([one[:, :100], other], axis=1)  # 55 % too, but other images
    narrow, wide = (paired_differences(one, side, GROUP)["wga"] for side in (nested, apart))
    assert narrow.mean == pytest.approx(0.05) == wide.mean
    assert narrow.low > -1e-9 > wide.low and narrow.high < wide.high


def test_seeds_that_differ_widen_the_interval():
    mixed = np.concatenate([_right(0.9, 0.9, seeds=1), _right(0.9, 0.3, seeds=1)])
    steady, other = _right(0.9, 0.6, seeds=2), _right(0.5, 0.5)
    spread = [paired_differences(side, other, GROUP)["wga"] for side in (steady, mixed)]
    assert spread[0].mean == pytest.approx(0.1) == spread[1].mean
    assert spread[1].low < 0 and spread[1].high - spread[1].low > 0.5
    assert spread[0].high - spread[0].low < 0.3


def test_a_method_may_have_one_seed():
    found = paired_differences(_right(0.9, 0.8), _right(0.9, 0.8, seeds=1), GROUP)
    assert found["wga"].mean == pytest.approx(0)
