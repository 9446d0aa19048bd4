"""Classifiers are found again by their rows; by those of earlier versions, which name none, too."""

from __future__ import annotations

import json

import pytest

from raysynth.errors import DataError
from raysynth.evaluation.final import Final
from raysynth.evaluation.kept import final_of
from raysynth.evaluation.results import trained
from raysynth.groups.metrics import over_seeds
from raysynth.heads.spec import HeadSpec
from raysynth.training.plan import Phase, Plan
from raysynth.training.units import unit_name


def write_units(folder, *decays: float) -> dict[tuple[float, int], dict]:
    """Two seeds of trainings that differ in their weight decay; (decay, seed) -> record."""
    records = {}
    for decay in decays:
        for seed in range(2):
            phase = Phase("real", 5, 0.1, decay)
            plan = Plan((phase,), (HeadSpec("trained"), HeadSpec("balanced", 0.5)), seed=seed)
            best = {
                spec.name: {
                    "step": 3,
                    "validation": {"wga": 0.5 + decay / 10 + seed / 100, "aga": 0.6},
                    "tuned": {},
                }
                for spec in plan.heads
            }
            record = {"plan": plan.to_dict(), "best": best, "seconds": 1.0}
            records[decay, seed] = json.loads(json.dumps(record))  # as it is read again
            (folder / f"{unit_name(plan)}.json").write_text(json.dumps(records[decay, seed]))
    return records


def test_a_row_leads_to_its_trainings_and_one_without_names_too(tmp_path):
    records = write_units(tmp_path, 0.1, 1.0)
    finals = [Final("erm", records[1.0, seed], "balanced-0.5") for seed in range(2)]
    row = trained(finals) | {"validation": over_seeds([final.validation for final in finals])}
    assert len(set(row["units"])) == 2
    older = {key: value for key, value in row.items() if key != "units"}
    for seed in range(2):
        assert final_of(str(tmp_path), "erm", row, seed) == finals[seed]
        assert final_of(str(tmp_path), "erm", older, seed) == finals[seed]


def test_a_training_that_is_not_there_is_named(tmp_path):
    records = write_units(tmp_path, 0.1)
    final = Final("erm", records[0.1, 0], "trained")
    row = trained([final]) | {"validation": over_seeds([final.validation])}
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"{row['units'][0]}.json: got nothing"):
        final_of(str(tmp_path), "erm", row, 0)
    write_units(tmp_path, 0.2)
    del row["units"]
    with pytest.raises(DataError, match="no training of erm, seed 0; expected one"):
        final_of(str(tmp_path), "erm", row, 0)
