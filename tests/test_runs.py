"""A run's folder: whole outputs or none, skipped when unchanged, resumed when cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raysynth.config_files import load_config
from raysynth.errors import ConfigError
from raysynth.runs import Run


def run_in(folder: Path, *overrides: str) -> Run:
    return Run(load_config(None, [f"storage_path={folder}", "name=t", *overrides]))


def write(name: str):
    def build(work: str) -> dict:
        Path(work, name).write_text(name)
        return {"rows": 1}

    return build


def test_unchanged_inputs_are_skipped_and_changed_ones_are_not(tmp_path):
    run = run_in(tmp_path)
    first = run.stage("ingest", {"a": 1}, write("one"))
    again = run_in(tmp_path).stage("ingest", {"a": 1}, write("never"))
    assert (first.skipped, again.skipped, again.facts) == (False, True, {"rows": 1})
    assert os.listdir(tmp_path / "t/real") == ["one"]
    changed = run.stage("ingest", {"a": 2}, write("two"))
    assert not changed.skipped and os.listdir(tmp_path / "t/real") == ["two"]
    record = json.loads((tmp_path / "t/manifest.json").read_text())["stages"]["ingest"]
    assert record["outputs"] == ["real/two"] and record["rows"] == 1
    assert record["versions"]["torch"]


def test_a_cut_off_stage_leaves_no_output_and_goes_on_where_it_was(tmp_path):
    run = run_in(tmp_path)

    def cut(work: str) -> dict:
        Path(work, "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("synthesis", {"a": 1}, cut)
    assert not (tmp_path / "t/synthetic").exists()
    run.stage("synthesis", {"a": 1}, write("rest"))
    assert sorted(os.listdir(tmp_path / "t/synthetic")) == ["half", "rest"]


def test_half_work_for_other_inputs_is_dropped(tmp_path):
    run = run_in(tmp_path)

    def cut(work: str) -> dict:
        Path(work, "old").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("ingest", {"a": 1}, cut)
    run.stage("ingest", {"a": 2}, write("new"))
    assert os.listdir(tmp_path / "t/real") == ["new"]
    assert os.listdir(tmp_path / "t/.partial") == []


def test_a_deleted_output_is_made_again(tmp_path):
    run = run_in(tmp_path)
    run.stage("ingest", {"a": 1}, write("one"))
    (tmp_path / "t/real/one").unlink()
    (tmp_path / "t/real").rmdir()
    assert not run.stage("ingest", {"a": 1}, write("one")).skipped


def test_other_filesystems_hold_runs_too():
    run = Run(load_config(None, ["storage_path=memory://runs", "name=t"]))

    def build(work: str) -> dict:
        run.filesystem.pipe_file(work.removeprefix("memory://") + "/x", b"1")
        return {}

    stage = run.stage("ingest", {}, build)
    assert run.filesystem.cat_file(stage.path.removeprefix("memory://") + "/x") == b"1"
    assert run.stage("ingest", {}, build).skipped


def test_unwritable_storage_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="storage_path: cannot write"):
        run_in(tmp_path / "file")
    with pytest.raises(ConfigError, match="storage_path"):
        Run(load_config(None, ["storage_path=nosuchscheme://x"]))


def test_runs_that_share_a_folder_do_what_they_have_in_common_once(tmp_path):
    shared = f"{tmp_path}/stages"
    first = Run(load_config(None, [f"storage_path={tmp_path}", "name=a"]), shared)
    second = Run(load_config(None, [f"storage_path={tmp_path}", "name=b"]), shared)
    one = first.stage("ingest", {"a": 1}, write("one"))
    same = second.stage("ingest", {"a": 1}, write("never"))
    other = second.stage("ingest", {"a": 2}, write("two"))
    assert same.skipped and same.path == one.path == first.folder("ingest")
    assert not other.skipped and other.path == second.folder("ingest") != one.path
    assert os.listdir(one.path) == ["one"] and os.listdir(other.path) == ["two"]
    record = json.loads((tmp_path / "b/manifest.json").read_text())["stages"]["ingest"]
    assert record["digest"] == other.digest


def test_half_work_in_a_shared_folder_stays_for_whoever_goes_on(tmp_path):
    shared = f"{tmp_path}/stages"

    def cut(work: str) -> dict:
        Path(work, "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(load_config(None, [f"storage_path={tmp_path}", "name=a"]), shared).stage(
            "synthesis", {"a": 1}, cut
        )
    other = Run(load_config(None, [f"storage_path={tmp_path}", "name=b"]), shared)
    other.stage("synthesis", {"a": 2}, write("two"))
    stage = other.stage("synthesis", {"a": 1}, write("rest"))
    assert sorted(os.listdir(stage.path)) == ["half", "rest"]


def test_variants_of_a_stage_lie_side_by_side_and_share_their_digest(tmp_path):
    run = run_in(tmp_path)
    shared, edit = (run.stage(f"synthesis/{v}", {"a": 1}, write(v)) for v in ("shared", "edit"))
    assert shared.digest == edit.digest
    assert sorted(os.listdir(tmp_path / "t/variants")) == ["edit", "shared"]
    assert run.folder("synthesis/edit") == str(tmp_path / "t/variants/edit/synthetic")
    assert run.stage("synthesis/edit", {"a": 1}, write("never")).skipped
