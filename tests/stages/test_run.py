"""A run's folder: whole outputs or none, skipped when unchanged, resumed when cut off."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.pipeline import open_run
from raysynth.stages import run as runs
from raysynth.stages.run import Run
from raysynth.storage.files import open_storage, sizes_below, write_atomic
from raysynth.storage.hashes import note_hashes


def run_in(folder: Path, *overrides: str) -> Run:
    return open_run(load_config(None, [f"storage_path={folder}", "name=t", *overrides]))


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


def test_a_stage_of_another_configuration_is_not_named_and_is_found_again(tmp_path):
    run = run_in(tmp_path)
    for name in ("ingest", "grouping"):
        run.stage(name, {"a": 1}, write(name))
    assert run.real == f"{tmp_path}/t/{run.folders['grouping']}"
    run.name_only(lambda name: name != "grouping")
    assert list(run.manifest()["stages"]) == ["ingest"] and run.real == f"{tmp_path}/t/real"
    assert run.stage("grouping", {"a": 1}, write("never")).skipped
    assert run.real.endswith(run.folders["grouping"])


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
    config = load_config(None, ["name=t"])
    run = open_run(config.model_copy(update={"storage_path": "memory://runs"}))

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
        open_run(load_config(None, ["storage_path=nosuchscheme://x"]))


def test_runs_that_share_a_folder_do_what_they_have_in_common_once(tmp_path):
    shared = f"{tmp_path}/stages"
    first = open_run(load_config(None, [f"storage_path={tmp_path}", "name=a"]), shared)
    second = open_run(load_config(None, [f"storage_path={tmp_path}", "name=b"]), shared)
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
        open_run(load_config(None, [f"storage_path={tmp_path}", "name=a"]), shared).stage(
            "synthesis", {"a": 1}, cut
        )
    other = open_run(load_config(None, [f"storage_path={tmp_path}", "name=b"]), shared)
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


def on_any(run: Run, *files: str):
    """Builds files below the working folder of a run, wherever it is."""

    def build(work: str) -> dict:
        for file in files:
            write_atomic(f"{work}/{file}", file.encode())
        return {"rows": len(files)}

    return build


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_lies_on_s3_as_on_a_disk(s3, shared):
    config = load_config(None, [f"storage_path={s3}", "name=t"])
    stages = f"{s3}/stages" if shared else None
    run = open_run(config, stages)
    made = run.stage("ingest", {}, on_any(run, "one", "below/two"))
    assert sizes_below(made.path) == {"one": 3, "below/two": 9}
    assert not [name for name in sizes_below(s3) if ".partial" in name]
    again = open_run(config, stages).stage("ingest", {}, write("never"))
    assert again.skipped and again.path == made.path == run.folder("ingest")
    other = run.stage("ingest", {"a": 2}, on_any(run, "three"))
    assert sizes_below(other.path) == {"three": 5}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("harm", ["cut", "emptied", "longer", "deleted"])
def test_a_damaged_output_is_named_and_made_again(tmp_path, shared, harm):
    def begun() -> tuple[Run, list[str]]:
        config = load_config(None, [f"storage_path={tmp_path}", "name=t"])
        run, said = open_run(config, f"{tmp_path}/stages" if shared else None), []
        run.say = said.append
        return run, said

    run, _ = begun()
    made = run.stage("ingest", {"a": 1}, on_any(run, "one", "two"))
    later = run.stage("clustering", {"after": made.digest}, on_any(run, "x"))
    file = Path(made.path, "two")
    if harm == "deleted":
        file.unlink()
    else:
        file.write_text({"cut": "t", "emptied": "", "longer": "two and"}[harm])
    run, said = begun()
    again = run.stage("ingest", {"a": 1}, on_any(run, "one", "two"))
    assert not again.skipped and file.read_text() == "two"
    assert len(said) == 1 and str(file) in said[0] and "made again" in said[0]
    assert run.stage("clustering", {"after": again.digest}, write("never")).skipped
    run, said = begun()
    assert run.stage("ingest", {"a": 1}, write("never")).skipped and not said
    assert later.digest == run.manifest()["stages"]["clustering"]["digest"]


def test_a_record_of_a_version_without_sizes_is_believed(tmp_path):
    run = run_in(tmp_path)
    run.stage("ingest", {"a": 1}, write("one"))
    manifest = json.loads((tmp_path / "t/manifest.json").read_text())
    del manifest["stages"]["ingest"]["sizes"]
    (tmp_path / "t/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "t/real/one").write_text("longer than it was")
    assert run_in(tmp_path).stage("ingest", {"a": 1}, write("never")).skipped


@pytest.mark.parametrize(
    "content",
    [b"", b'{"stages": {"ing', b"\xff\xfe", b'{"stages": []}', b"[]", b'{"stages": {"ingest": 1}}'],
)
def test_a_manifest_that_cannot_be_read_is_kept_aside_and_nothing_is_made_again(tmp_path, content):
    run = run_in(tmp_path)
    for name in ("ingest", "synthesis/edit", "synthesis/shared"):
        run.stage(name, {"of": name}, write(name[-4:]))
    before = run.manifest()["stages"]
    (tmp_path / "t/manifest.json").write_bytes(content)
    run, said = run_in(tmp_path), []
    run.say = said.append
    for name in ("ingest", "synthesis/edit", "synthesis/shared"):
        assert run.stage(name, {"of": name}, write("never")).skipped
    assert len(said) == 1 and "manifest.json cannot be read" in said[0]
    assert (tmp_path / "t/manifest.json.broken").read_bytes() == content
    assert run.manifest()["stages"] == before


def test_a_folder_in_the_manifests_place_is_kept_aside(tmp_path):
    run_in(tmp_path).stage("ingest", {"a": 1}, write("once"))
    (tmp_path / "t/manifest.json").unlink()
    (tmp_path / "t/manifest.json").mkdir()
    assert run_in(tmp_path).stage("ingest", {"a": 1}, write("never")).skipped
    assert (tmp_path / "t/manifest.json").is_file()


@pytest.mark.parametrize(
    "changes", [{"sizes": {"a": "x"}}, {"sizes": {"a": None}}, {"seconds": float("nan")}]
)
def test_a_record_of_no_numbers_is_not_believed(tmp_path, changes):
    run_in(tmp_path).stage("ingest", {"a": 1}, write("once"))
    for file in tmp_path.rglob("*.json"):
        text = json.loads(file.read_text())
        record = text["stages"]["ingest"] if "stages" in text else text
        record.update(changes)
        file.write_text(json.dumps(text))
    assert not run_in(tmp_path).stage("ingest", {"a": 1}, write("again")).skipped


@pytest.mark.parametrize("content", ["", "garbage", "nan", '"a"', "[1]", "-1", "1e999"])
def test_seconds_that_cannot_be_read_stop_no_run(tmp_path, content):
    run = run_in(tmp_path)

    def cut(work: str) -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("ingest", {"a": 1}, cut)
    (seconds,) = (tmp_path / "t/.partial").glob("*/.seconds")
    seconds.write_text(content)
    assert 0 <= run.stage("ingest", {"a": 1}, write("one")).seconds < 60


KILLED = """
import os, signal, sys
from pathlib import Path
import raysynth.stages.run as runs
from raysynth.config.files import load_config
where, when, shared = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
move = runs.move
def moved(source, target):
    move(source, target)
    die()
runs.move = die if when == "before" else moved
from raysynth.pipeline import open_run
run = open_run(load_config(None, [f"storage_path={where}", "name=t"]), shared or None)
run.stage("ingest", {"a": 1}, lambda work: Path(work, "one").write_text("one") and {"rows": 1})
"""


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_making_and_naming_a_stage_is_not_made_twice(tmp_path, when, shared):
    stages = f"{tmp_path}/stages" if shared else ""
    config = load_config(None, [f"storage_path={tmp_path}", "name=t"])
    open_run(config, stages or None).stage("ingest", {"a": 2}, write("old"))  # the same sizes
    command = [sys.executable, "-c", KILLED, str(tmp_path), when, stages]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    run = open_run(config, stages or None)
    stage = run.stage("ingest", {"a": 1}, write("never"))
    assert stage.skipped and os.listdir(stage.path) == ["one"] and stage.facts == {"rows": 1}
    assert run.stage("ingest", {"a": 1}, write("never")).skipped
    assert os.listdir(f"{stages or tmp_path / 't'}/.partial") == []


def test_temporary_files_of_a_killed_writer_are_no_outputs(tmp_path):
    run = run_in(tmp_path)

    def killed(work: str) -> dict:
        Path(work, "shard.parquet.77.tmp").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("ingest", {"a": 1}, killed)

    def goes_on(work: str) -> dict:
        assert os.listdir(work) == [".seconds"]  # the room is free before anything is written
        Path(work, "x.parquet.78.tmp").write_text("half")
        return write("one")(work)

    assert os.listdir(run.stage("ingest", {"a": 1}, goes_on).path) == ["one"]


FULL = """
import resource, sys
from raysynth.config.files import load_config
from raysynth.pipeline import open_run
from raysynth.stages.run import Run
from raysynth.storage.files import write_atomic
run = open_run(load_config(None, [f"storage_path={sys.argv[1]}", "name=t"]))
def build(work):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
    write_atomic(f"{work}/one", b"one, and more")
run.stage("ingest", {"a": 1}, build)
"""


def test_a_full_disk_is_what_is_said_and_the_run_goes_on(tmp_path):
    """The note of the seconds fails too, and must not hide the first error."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert "StorageError: disk full at" in done.stderr.splitlines()[-1]
    assert "/one" in done.stderr.splitlines()[-1] and "s3fs" not in done.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    assert not run_in(tmp_path).stage("ingest", {"a": 1}, write("one")).skipped


def test_advice_is_for_the_cause(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as found:
        run_in(tmp_path / "file")
    assert "s3fs" not in str(found.value)
    with pytest.raises(ConfigError, match=r"\*\*\*@host") as found:
        open_run(load_config(None, ["storage_path=nosuchscheme://me:word@host", "name=t"]))
    assert "word" not in str(found.value)


def on_memory(name: str, shared: str | None = None) -> Run:
    """A run on what is no disk; `shared`: a folder beside it."""
    config = load_config(None, ["name=t"]).model_copy(update={"storage_path": f"memory://{name}"})
    return open_run(config, shared and f"memory://{name}/{shared}")


@pytest.mark.parametrize("shared", [None, "stages"])
def test_where_nothing_can_be_renamed_a_stage_is_built_where_it_stays(
    tmp_path, monkeypatch, shared
):
    def never_moved(*_: str) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(runs, "move", never_moved)
    run, seen = on_memory(tmp_path.name, shared), []

    def build(work: str) -> dict:
        write_atomic(f"{work}/one", b"1")
        seen.append(work)
        return {}

    made = run.stage("ingest", {"a": 1}, build)
    assert seen == [made.path] == [run.folder("ingest")] and made.digest in made.path
    assert sizes_below(made.path) == {"one": 1}
    again = on_memory(tmp_path.name, shared).stage("ingest", {"a": 1}, write("never"))
    assert again.skipped and again.path == made.path


def test_other_inputs_leave_the_old_outputs_until_the_new_ones_are_recorded(tmp_path):
    run = on_memory(tmp_path.name)
    old = run.stage("synthesis/edit", {"a": 1}, on_any(run, "one"))

    def cut(work: str) -> dict:
        write_atomic(f"{work}/half", b"")
        raise KeyboardInterrupt

    for other in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run.stage("synthesis/edit", {"a": other}, cut)
        assert sizes_below(old.path) == {"one": 3} and run.folder("synthesis/edit") == old.path
    half = [name for name in sizes_below(f"{run.root}/variants") if name.endswith("half")]
    assert len(half) == 1  # what was begun for the inputs before is gone
    new = run.stage("synthesis/edit", {"a": 3}, on_any(run, "two"))
    assert sizes_below(new.path) == {"half": 0, "two": 3} and sizes_below(old.path) == {}
    records = [name for name in sizes_below(run.root) if name.startswith(".records/")]
    assert records == [f".records/variants/edit/synthetic-{new.digest}.json"]
    assert run.stage("synthesis/edit", {"a": 1}, on_any(run, "one")).path == old.path


@pytest.mark.parametrize("shared", [None, "stages"])
@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(
    ("dies_at", "builds", "skipped"),
    [
        ("before /.facts.json", True, False),
        ("after /.facts.json", False, False),
        ("before /.records/", False, False),
        ("after /.records/", False, True),
    ],
)
def test_killed_around_its_record_a_stage_finds_its_work(
    tmp_path, monkeypatch, disk, shared, dies_at, builds, skipped
):
    def opened() -> Run:
        if not disk:
            return on_memory(tmp_path.name, shared)
        config = load_config(None, [f"storage_path={tmp_path}", "name=t"])
        return open_run(config, shared and f"{tmp_path}/{shared}")

    real, (when, what) = runs.write_atomic, dies_at.split()

    def killed(path: str, data: bytes, **more) -> None:
        if what not in path or when == "after":
            real(path, data, **more)
        if what in path:
            raise KeyboardInterrupt

    run, found = opened(), []
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            run.stage("ingest", {"a": 1}, on_any(run, "one"))

    def build(work: str) -> dict:
        found.append(sizes_below(work).keys() - {".seconds"})
        return {"rows": 1}

    again = opened().stage("ingest", {"a": 1}, build)
    assert found == ([{"one"}] if builds else []) and again.skipped is skipped
    assert again.facts == {"rows": 1} and sizes_below(again.path) == {"one": 3}


@pytest.mark.parametrize("shared", [None, "stages"])
def test_a_damaged_stage_is_made_again_from_nothing_where_nothing_is_renamed(tmp_path, shared):
    """The rest of it must not pass for work of a cut-off attempt; after a kill that is kept."""
    run = on_memory(tmp_path.name, shared)
    made = run.stage("ingest", {"a": 1}, on_any(run, "one", "two"))
    write_atomic(f"{made.path}/two", b"harm done")
    there = []

    def cut(work: str) -> dict:
        there.append(sorted(sizes_below(work).keys() - {".seconds"}))
        write_atomic(f"{work}/half", b"")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            on_memory(tmp_path.name, shared).stage("ingest", {"a": 1}, cut)
    assert there == [[], ["half"]]


def test_a_run_of_before_is_known_where_nothing_is_renamed(tmp_path):
    """Its record names no folder, and its stages lie in folders without a digest."""
    run = on_memory(tmp_path.name)
    made = run.stage("ingest", {"a": 1}, on_any(run, "one"))
    manifest = run.manifest()
    del manifest["stages"]["ingest"]["folder"]
    write_atomic(f"{run.root}/manifest.json", json.dumps(manifest).encode())
    storage, path = open_storage(run.root)
    storage.mv(made.path.removeprefix("memory:/"), f"{path}/real", recursive=True)
    same = on_memory(tmp_path.name).stage("ingest", {"a": 1}, write("never"))
    assert same.skipped and same.path == f"{run.root}/real" == run.folder("ingest")
    other = run.stage("ingest", {"a": 2}, on_any(run, "two"))
    assert sizes_below(f"{run.root}/real") == {} and sizes_below(other.path) == {"two": 3}


def test_a_record_says_the_content_of_every_file_and_notes_of_writers_are_believed(tmp_path):
    run = run_in(tmp_path)

    def build(work: str) -> dict:
        for name in ("one", "below/two", "below/three"):
            write_atomic(f"{work}/{name}", name.encode())
        note_hashes(f"{work}/below", {"two": "as told", "gone": "0"})
        return {}

    made = run.stage("ingest", {"a": 1}, build)
    assert sorted(sizes_below(made.path)) == ["below/three", "below/two", "one"]
    assert run.manifest()["stages"]["ingest"]["sha256"] == {
        "below/three": hashlib.sha256(b"below/three").hexdigest(),
        "below/two": "as told",
        "one": hashlib.sha256(b"one").hexdigest(),
    }


@pytest.mark.parametrize("folder", ["../other", "/etc", "a//b", "", 1, ".", "a/../../b"])
def test_a_record_that_leads_out_of_its_run_is_not_believed(tmp_path, folder):
    run = run_in(tmp_path)
    run.stage("ingest", {"a": 1}, write("one"))
    manifest = json.loads((tmp_path / "t/manifest.json").read_text())
    manifest["stages"]["ingest"]["folder"] = folder
    (tmp_path / "t/manifest.json").write_text(json.dumps(manifest))
    run = run_in(tmp_path)
    assert run.stage("ingest", {"a": 1}, write("one")).path == str(tmp_path / "t/real")


def test_a_stage_on_s3_is_written_once_and_asks_little(s3, s3_requests):
    """Every output is put once and read once, for its SHA-256; the rest does not grow with them."""
    config = load_config(None, [f"storage_path={s3}", "name=t"])
    names, run = [f"file-{n}" for n in range(10)], open_run(config)
    run.stage("ingest", {"a": 1}, on_any(run, *names))
    asked = s3_requests()
    of = [[each.split()[0] for each in asked if each.endswith(f"/{name}")] for name in names]
    assert of == [["PUT", "GET"]] * 10
    assert len(asked) - 20 <= 20, asked
    open_run(config).stage("ingest", {"a": 1}, write("never"))
    assert len(s3_requests()) - len(asked) <= 6
