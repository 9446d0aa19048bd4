"""What kept images show, as columns of a benchmark's records."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from raysynth.benchmark.cells import plan_cells
from raysynth.benchmark.faithful import fidelity_markdown, fidelity_of, summary
from raysynth.stages.record import shared_name
from tests.benchmark.test_benchmark import planned


def group(label: float, frechet: float | None, brightness: float) -> dict[str, Any]:
    distance = None if frechet is None else {"value": frechet, "floor": 1.0}
    return {
        "agreement": {"kept": {"label": label}, "real": {"label": 0.8}},
        "distances": {"frechet": distance},
        "spread": {"brightness": {"ratio": brightness}, "contrast": None},
    }


def test_a_cells_columns_are_means_over_the_groups_that_are_known():
    unknown = {"agreement": None, "distances": None, "spread": None}
    found = summary([group(0.9, 3.0, 0.5), group(0.7, None, 2.0), unknown])
    assert found == {
        "shown_label": pytest.approx(0.8),
        "shown_label_real": pytest.approx(0.8),
        "frechet": 3.0,
        "frechet_floor": 1.0,
        "spread_brightness": pytest.approx(1.0),
    }
    assert summary([unknown]) == {}


def test_a_cells_fidelity_is_read_where_its_stage_lies(tmp_path):
    cell = plan_cells(planned(tmp_path))[0]
    assert fidelity_of(cell, str(tmp_path)) == {}, "not measured"
    place = tmp_path / shared_name("fidelity", cell.stages["fidelity"])
    place.mkdir()
    groups = {"coat/grass": group(0.9, 3.0, 0.5)}
    (place / "fidelity.json").write_text(json.dumps({"groups": groups}))
    assert fidelity_of(cell, str(tmp_path)) == summary(list(groups.values()))


def test_the_table_has_the_rows_that_were_measured():
    here = summary([group(0.9, 3.0, 0.5)])
    seeds = [{"row": "clusters", "severity": 0.99, "seed": s} for s in (0, 1)]
    records = pd.DataFrame(
        [seeds[0] | here, seeds[1] | here | {"frechet": 5.0}, {**seeds[0], "row": "erm"}]
    )
    text = fidelity_markdown(records)
    assert "| clusters | 90 % | 80 % | 4.00 | 1.00 | 0.50 |" in text and "erm" not in text
    assert fidelity_markdown(records[["row", "severity", "seed"]]) == ""
