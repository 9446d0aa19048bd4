"""What a cut-off experiment leaves: read whole, or said to be damaged."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from raysynth.errors import DamagedError
from raysynth.search.state import check_state
from raysynth.search.table import rows_of

PARAMETERS = {"ratio": 0.5, "learning_rate": 0.003}
STATE = (
    "experiment_state-2026-11-30_02.json",
    "search_gen_state-2026.json",
    "searcher-state-2.pkl",
)


def write_state(folder):
    """As Tune leaves it; an older state beside the newest need not be whole."""
    folder.mkdir()
    (folder / STATE[0]).write_text(json.dumps({"trial_data": [["a", "b"]]}))
    (folder / "experiment_state-2026-11-30_01.json").write_text("{")
    for name in STATE[1:]:
        (folder / name).write_bytes(pickle.dumps({"searcher": list(range(100))}))


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("kept", [0, 7, None])
def test_a_state_that_is_cut_off_is_not_gone_on_with(tmp_path, name, kept):
    folder = tmp_path / "runs [v2]"
    write_state(folder)
    check_state(str(folder))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:kept] if kept is not None else data[:-2])
    with pytest.raises((ValueError, EOFError, pickle.UnpicklingError)):
        check_state(str(folder))
    for file in folder.glob(f"{name.split('-')[0]}*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=name.split("-")[0]):
        check_state(str(folder))


@dataclass
class Trial:
    """What is read of a result of Tune's."""

    reports: int
    made: int = 2
    error: Exception | None = None
    config: dict[str, Any] = field(default_factory=lambda: PARAMETERS)

    @property
    def metrics(self):
        return {"trial_id": "t1", "training_iteration": self.made} if self.made else None

    @property
    def metrics_dataframe(self):
        told = {"reached": 4, "seconds": 1.0, "heads/0.01:1.0/wga": 0.25, "heads/0.01:1.0/aga": 0.5}
        return pd.DataFrame([told] * self.reports)


def test_a_trial_whose_reports_are_not_all_there_is_damage(tmp_path):
    ((row,), failed) = rows_of([Trial(reports=2)], "/runs/mini/search/tune")
    assert (row["trial"], row["validation_wga"], failed) == ("t1", 0.25, {})
    for there in (0, 1):
        with pytest.raises(DamagedError, match=f"{there} of 2 reports of trial t1") as refused:
            rows_of([Trial(reports=there)], "/runs/mini/search/tune")
        assert refused.value.path == "/runs/mini/search/tune"


def test_a_trial_that_failed_or_reported_nothing_is_counted_so():
    rows, failed = rows_of([Trial(reports=0, made=0)], "")
    assert (rows, failed) == ([], {"0": "it reported nothing"})
    rows, failed = rows_of([Trial(reports=1, made=2, error=ValueError("broken"))], "")
    assert (rows, failed) == ([], {"t1": "broken"})
