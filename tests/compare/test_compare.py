"""Runs are listed, set side by side in words and as a page, and their reports are opened."""

from __future__ import annotations

import json
import re

import pytest

from raysynth.compare.grids import beside, listed, named
from raysynth.compare.page import render
from raysynth.compare.read import differences, known, runs_below
from raysynth.compare.show import open_report, show_beside, show_runs
from raysynth.errors import ConfigError
from tests.report.made_run import ACCURACY, GROUPS, make_run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs that differ in two settings."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder, "name=red", "dataset.severity=0.9")
    make_run(folder, "name=blue", "dataset.severity=0.95", "search.trials=3")
    return str(folder)


def test_runs_of_a_folder_are_a_row_each(two, capsys):
    grid = listed(runs_below(two))
    rows = {row[0]: row for row in grid.rows}
    assert set(rows) == {"red", "blue"}
    assert rows["red"][3] == "0.9" and rows["blue"][5] == "raysynth"
    assert re.fullmatch(r"\d\d\.\d ± \d+\.\d", rows["red"][6])
    show_runs(two)
    said = capsys.readouterr()
    assert "red" in said.out and "0.95" in said.out and said.err == ""
    assert max(map(len, said.out.splitlines())) < 200


def test_a_folder_without_runs_is_refused(two, tmp_path):
    with pytest.raises(ConfigError, match=r"no run below it; .*Fix: "):
        runs_below(str(tmp_path))
    with pytest.raises(ConfigError, match=r"no such folder"):
        runs_below(f"{tmp_path}/away")


def test_a_benchmarks_cells_are_rows_and_its_counts_are_said(tmp_path, capsys):
    make_run(tmp_path / "table" / "runs", "name=vanilla-0.8-0")
    with pytest.raises(ConfigError, match=r"no run below it; [^(]*$"):
        runs_below(str(tmp_path))
    cells = {"total": 3, "done": 1, "waiting": 2, "at_work": [], "failed": {}, "left": None}
    told = {"cells": cells, "ended": {"at": 1.0, "how": "stopped", "code": None}}
    (tmp_path / "table" / "status.json").write_text(json.dumps(told))
    assert [run.name for run in runs_below(f"{tmp_path}/table")] == ["vanilla-0.8-0"]
    show_runs(f"{tmp_path}/table")
    said = " ".join(capsys.readouterr().out.split())
    assert "vanilla-0.8-0" in said
    assert f"Benchmark {tmp_path}/table: stopped, cells 1 of 3 done (33 %), 2 to come" in said
    with pytest.raises(ConfigError, match=rf"or a benchmark's folder \({tmp_path}/table\)"):
        show_runs(str(tmp_path))


def test_only_settings_that_differ_are_shown(two):
    runs = [known(f"{two}/{name}") for name in ("red", "blue")]
    assert differences(runs) == [("dataset.severity", [0.9, 0.95]), ("search.trials", [12, 3])]
    assert not differences([runs[0], runs[0]])


def test_all_methods_groups_costs_and_settings_stand_side_by_side(two, capsys):
    runs = [known(f"{two}/{name}") for name in ("red", "blue")]
    grids = {grid.title: grid for grid in beside(runs, ["red", "blue"])}
    assert len(grids["Worst-group accuracy (WGA)"].rows) == len(ACCURACY)
    assert grids["Worst-group accuracy (WGA)"].rows[-1][1].endswith("*"), "ours is shipped"
    assert [row[0] for row in grids["Accuracy per group"].rows] == list(GROUPS.names)
    assert {"ingest", "all stages, summed"} <= {row[0] for row in grids["What it cost"].rows}
    show_beside([f"{two}/red", f"{two}/blue"], "")
    said = capsys.readouterr().out
    assert "Settings that differ" in said and "search.trials" in said
    assert "clustering.max_k" not in said


def test_the_page_is_one_file_with_a_chart_and_pictures_of_every_group(two):
    runs = [known(f"{two}/{name}") for name in ("red", "blue")]
    page = render(runs, ["red", "blue"])
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page), "nothing outside of the file"
    assert page.count("data:image/png;base64,") == GROUPS.count * 3
    assert "<svg" in page and all(name in page for name in GROUPS.names)
    assert page.count("<caption>") == page.count("<table")
    assert page.count("<script") == 0 and "no alt" not in page
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))


def test_runs_of_one_name_are_told_apart_by_their_folders(two, tmp_path):
    make_run(tmp_path / "more", "name=red")
    runs = [known(f"{two}/red"), known(f"{tmp_path}/more/red")]
    assert named(runs)[1] == "more/red"


def test_too_few_runs_and_a_run_without_a_report_are_refused(two):
    with pytest.raises(ConfigError, match=r"got 1, expected two or more"):
        show_beside([f"{two}/red"], "")
    with pytest.raises(ConfigError, match=r"no report yet, the run is unknown"):
        open_report(f"{two}/red", show=False)


def test_a_report_on_an_object_store_is_fetched(s3, tmp_path):
    import s3fs

    _, run = make_run(tmp_path, "name=red")
    run.stage("report", {}, _page)
    remote = s3fs.S3FileSystem()
    remote.put(f"{tmp_path}/red/", f"{s3}/red/".removeprefix("s3://"), recursive=True)
    assert known(f"{s3}/red").methods.keys() == ACCURACY.keys()
    with open(open_report(f"{s3}/red", show=False)) as page:
        assert page.read() == "the page"
    local = open_report(f"{tmp_path}/red", show=False)
    assert local.startswith(f"{tmp_path}/red/")


def _page(work: str) -> dict:
    with open(f"{work}/index.html", "w") as page:
        page.write("the page")
    return {"rows": 1}


def test_own_images_are_called_by_their_folder(tmp_path):
    """Before there are results, and after."""
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text("dataset: {name: tree, path: /data/birds/}\n")
    (begun / "manifest.json").write_text('{"stages": {}}')
    assert known(str(begun)).data == "birds"
    (begun / "config.yaml").write_text("dataset: {name: outfits, path: null}\n")
    assert known(str(begun)).data == "outfits"
