"""What stages take besides time: sampled, shared by those at work, kept over attempts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from raysynth.gauges import Reading
from raysynth.stages.attempts import SECONDS, Taken, counted, spent_of, taken_before
from raysynth.stages.spending import Spending, Spent
from tests.stages.test_run import run_in


class Machine:
    """A machine whose gauges are set by hand."""

    def __init__(self) -> None:
        self.now = Reading(1.0, None, 0.0)

    def __call__(self) -> Reading:
        return self.now


def test_a_stage_has_the_peak_and_the_energy_of_its_time():
    machine, spent = Machine(), Spent()
    spending = Spending(machine)
    machine.now = Reading(9.0, 90.0, 50.0)  # before it began
    with spending.counting(spent):
        machine.now = Reading(5.0, 20.0, 70.0)
        spending._sample()
        machine.now = Reading(3.0, 10.0, 75.0)
    machine.now = Reading(99.0, 99.0, 999.0)
    spending._sample()
    assert spent == Spent(5.0, 20.0, 25.0)


def test_stages_side_by_side_share_the_energy_and_each_have_the_peak():
    machine, one, other = Machine(), Spent(), Spent()
    spending = Spending(machine)
    with spending.counting(one):
        machine.now = Reading(1.0, None, 10.0)
        with spending.counting(other):
            machine.now = Reading(4.0, None, 30.0)
        machine.now = Reading(2.0, None, 31.0)
    assert one == Spent(4.0, None, 21.0) and other == Spent(4.0, None, 10.0)
    assert one.told == {"memory": 4, "joules": 21}


def test_a_peak_in_the_middle_is_seen(monkeypatch):
    monkeypatch.setattr("raysynth.stages.spending.EVERY", 0.01)
    machine, spent = Machine(), Spent()
    with Spending(machine).counting(spent):
        machine.now = Reading(7.0)
        until = time.monotonic() + 10
        while (spent.memory or 0) < 7 and time.monotonic() < until:
            time.sleep(0.01)
        machine.now = Reading(1.0)
    assert spent.memory == 7.0


def test_attempts_add_up(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), counted(str(tmp_path)) as taken:
            taken.spent.joules = (taken.spent.joules or 0) + 5
            raise KeyError
    before = taken_before(str(tmp_path))
    assert before.spent.joules == 10 and before.spent.memory > 1e6 and before.seconds > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5", Taken(12.5)),  # an earlier version's
        ('{"seconds": 3, "spent": {"memory": 7}}', Taken(3.0, Spent(7.0))),
        ('{"seconds": -3, "spent": {"memory": 7}}', Taken()),
        ('{"spent": {"memory": 7}}', Taken()),
        ("[1]", Taken()),
    ],
)
def test_what_earlier_attempts_took_is_read(tmp_path, text, expected):
    (tmp_path / SECONDS).write_text(text)
    assert taken_before(str(tmp_path)) == expected


def test_what_is_no_number_is_not_known():
    told = {"memory": "much", "joules": -1, "gpu_memory": float("nan"), "other": 3}
    assert spent_of(told) == spent_of(None) == spent_of([1]) == Spent()


def test_a_record_has_it_and_the_digest_does_not(tmp_path):
    run = run_in(tmp_path)
    stage = run.stage("ingest", {"a": 1}, lambda work: Path(work, "x").touch() or {"rows": 1})
    manifest = tmp_path / "t/manifest.json"
    record = json.loads(manifest.read_text())["stages"]["ingest"]
    assert record["spent"]["memory"] > 1e6 and "spent" not in record["inputs"]
    told = json.loads(manifest.read_text())
    del told["stages"]["ingest"]["spent"]  # as an earlier version wrote it
    manifest.write_text(json.dumps(told))
    again = run_in(tmp_path).stage("ingest", {"a": 1}, lambda work: {"rows": 2})
    assert again.skipped and again.digest == stage.digest
