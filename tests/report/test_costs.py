"""What a run cost on its page: what was recorded, and what was not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysynth.report.content import Content, read_content
from raysynth.report.costs import cost, energy, gigabytes, stages
from raysynth.report.page import Shown, render
from raysynth.stages.spending import Spent
from tests.report.made_run import make_run


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> Content:
    return read_content(*make_run(tmp_path_factory.mktemp("run")))


def test_memory_of_every_stage_is_on_the_page(content):
    told = cost(content, "7 min")
    assert list(told.columns) == ["memory"] and "Peak memory: " in told.said
    assert "Not readable here: energy" in told.missing and "a GPU's" not in told.missing
    rows = stages(content, {"ingest": "reading", "audit": "not in this run"})
    assert [row.name for row in rows] == ["ingest"]
    assert rows[0].spent["memory"].endswith("B") and rows[0].spent["joules"] == "–"
    page = render(content, None, Shown())
    assert "Time and memory of every stage" in page and rows[0].spent["memory"] in page


def test_what_gpus_and_processors_count_has_columns_of_its_own(content):
    spent = {"ingest": Spent(1e9, 2e9, 3600.0), "search": Spent(2.5e9, 80e9, 7200.0)}
    full = replace(content, spent=spent)
    told = cost(full, "7 min")
    assert list(told.columns) == ["memory", "gpu_memory", "joules"]
    for part in ("Peak memory: 2.5 GB.", "fullest GPU: 80.0 GB.", "3.0 Wh of energy"):
        assert part in told.said
    assert "Not readable" not in told.missing
    page = render(full, None, Shown())
    assert page.count("peak GPU memory") > len(stages(full, {"ingest": ""}))


def test_a_run_of_an_earlier_version_says_that_it_recorded_neither(content):
    old = replace(content, spent=dict.fromkeys(content.timings, Spent()))
    told = cost(old, "7 min")
    assert not told.columns and "recorded neither memory nor energy" in told.missing
    page = render(old, None, Shown())
    assert "Wall time of every stage" in page and "peak memory" not in page


def test_numbers_have_the_unit_that_they_need():
    assert [gigabytes(x) for x in (4.56e8, 3.21e9)] == ["456 MB", "3.2 GB"]
    assert [energy(x) for x in (90, 3600, 7.2e6)] == ["90 J", "1.0 Wh", "2.00 kWh"]
