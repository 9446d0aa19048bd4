"""Rates are of work that is done now, and durations are short."""

from __future__ import annotations

import pytest

from raysynth.pace import Pace, duration


def test_the_rate_is_of_the_last_minutes_and_not_of_what_was_kept():
    pace = Pace()
    assert pace.at(0.0, 500) is None
    assert pace.at(10.0, 500) is None
    assert pace.at(20.0, 600) == pytest.approx(10.0), "workers started until 10"
    for second in range(30, 1000, 10):
        rate = pace.at(float(second), 600 + 2 * (second - 20))
    assert rate == pytest.approx(2.0)
    assert pace.at(1000.0, 0) is None, "another count"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(3.21, "3.2 s"), (75, "75 s"), (720, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations(seconds, told):
    assert duration(seconds) == told
