"""`raysynth verify`: every harm to a finished stage's files is named; stages are made again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from raysynth.cli import main
from raysynth.cluster.lease import Lease
from raysynth.config.files import load_config
from raysynth.errors import ConfigError, DataError
from raysynth.models.finite import fault_of
from raysynth.pipeline import open_run
from raysynth.progress import Progress
from raysynth.stages.run import Run
from raysynth.storage.files import open_storage, sizes_below, write_atomic
from raysynth.storage.hashes import sha256_of
from raysynth.storage.tables import read_table, write_table
from raysynth.synthesis.shards import ShardRecord, write_manifest
from raysynth.verify import redo, verify

STAGES = ("ingest", "finetune", "synthesis", "selection")


def weights(*, poison: float = 0.5, dtype: type = np.float32) -> bytes:
    values = np.linspace(-1, 1, 300, dtype=dtype)
    values[7] = poison
    return save({"a": np.ones((2, 3), np.float32), "b": values.reshape(3, 100)})


def table(rows: int) -> pa.Table:
    return pa.table({"id": [f"{row:06d}" for row in range(rows)]})


def ingest(work: str) -> dict:
    write_table(table(30), f"{work}/train-00000.parquet")
    write_table(table(10), f"{work}/test-00000.parquet")
    return {"rows": 40}


def finetune(work: str) -> dict:
    write_atomic(f"{work}/a-0/weights.safetensors", weights())
    write_atomic(f"{work}/adapters.json", b"[]")
    return {"rows": 1}


def synthesis(work: str) -> dict:
    records = []
    for number in range(3):
        write_table(table(20), f"{work}/group-0-{number}.parquet")
        digest = sha256_of(f"{work}/group-0-{number}.parquet")
        records.append(ShardRecord(f"group-0-{number}.parquet", 0, 20, digest))
    write_manifest(work, records, {})
    return {"rows": 60}


def selection(work: str) -> dict:
    write_table(table(60), f"{work}/selection.parquet")
    return {"rows": 60}


def made(place: str) -> Run:
    """A run of four stages, each made of those before, as a pipeline names them."""
    run = open_run(load_config(None, [f"storage_path={place}", "name=t"]))
    after: dict[str, str] = {}
    for build in (ingest, finetune, synthesis, selection):
        done = run.stage(build.__name__, {"after": dict(after)}, build)
        after = {build.__name__: done.digest}
    return run


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)


@pytest.fixture
def run(place) -> Run:
    return made(place)


def told(run: Run, capsys) -> str:
    """What is said of a run that is not as it was made."""
    with pytest.raises(DataError, match=r"finished stages are not as they were made .*--redo"):
        verify(run.root, Progress(), print)
    return capsys.readouterr().out


def test_a_whole_run_is_whole(run, capsys):
    assert [each.faults for each in verify(run.root, Progress(), print)] == [()] * 4
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said] == list(STAGES)
    record = run.manifest()["stages"]["synthesis"]
    assert (
        record["sizes"].keys()
        == record["sha256"].keys()
        == sizes_below(run.folder("synthesis")).keys()
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_that_is_cut_changed_or_gone_is_named(tmp_path, capsys, stage):
    run = made(str(tmp_path))
    folder = run.folder(stage)
    file = sorted(name for name in sizes_below(folder) if not name.endswith(".json"))[0]
    storage, path = open_storage(f"{folder}/{file}")
    whole = storage.cat_file(path)
    for data in (whole[:-5], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], None):
        storage.rm_file(path)
        if data is not None:
            storage.pipe_file(path, data)
        said = told(run, capsys)
        lines = [line for line in said.splitlines() if line.startswith("    ")]
        assert len(lines) == 1 and f"{folder}/{file}" in lines[0], said
        assert said.count("✗") == 1 and f"✗ {stage}" in said
        storage.pipe_file(path, whole)
        storage.invalidate_cache()
    verify(run.root, Progress(), print)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_found_however_they_came_there(tmp_path, capsys, poison):
    run = made(str(tmp_path))
    path = Path(run.folder("finetune")) / "a-0/weights.safetensors"
    path.write_bytes(weights(poison=poison))
    manifest = run.manifest()  # as if it had been trained so
    manifest["stages"]["finetune"]["sha256"]["a-0/weights.safetensors"] = sha256_of(str(path))
    Path(run.path("manifest.json")).write_text(json.dumps(manifest))
    assert f"{path} has 1 of 300 weights that are no finite number, in b" in told(run, capsys)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_kind_of_float_is_looked_at(tmp_path, dtype):
    for poison, fault in ((0.5, ""), (np.nan, "has 1 of 300 weights"), (-np.inf, "has 1 of 300")):
        path = tmp_path / "x.safetensors"
        path.write_bytes(weights(poison=poison, dtype=dtype))
        with path.open("rb") as file:
            assert fault_of(file, path.stat().st_size).startswith(fault)
    with path.open("rb") as file:
        assert "no whole safetensors file" in fault_of(file, 10_000)


def test_bfloat16_is_looked_at(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.linspace(-1e38, 1e38, 1000, dtype=torch.bfloat16)
    values[[3, 4]] = torch.tensor([torch.nan, torch.inf], dtype=torch.bfloat16)
    save_file({"x": values}, tmp_path / "x")
    with (tmp_path / "x").open("rb") as file:
        found = fault_of(file, (tmp_path / "x").stat().st_size)
    assert found == "has 2 of 1,000 weights that are no finite number, in x"


def test_rows_are_counted_where_a_record_of_before_has_neither_sizes_nor_hashes(tmp_path, capsys):
    run = made(str(tmp_path))
    manifest = run.manifest()
    for record in manifest["stages"].values():
        for key in ("sizes", "sha256", "folder"):
            del record[key]
    Path(run.path("manifest.json")).write_text(json.dumps(manifest))
    verify(run.root, Progress(), print)
    capsys.readouterr()
    write_table(table(29), f"{run.folder('ingest')}/train-00000.parquet")
    assert f"{run.folder('ingest')}/: 39 rows, expected 40" in told(run, capsys)
    write_table(table(59), f"{run.folder('selection')}/selection.parquet")
    assert "selection.parquet: 59 rows, expected 60" in told(run, capsys)
    shard = f"{run.folder('synthesis')}/group-0-1.parquet"
    shards = json.loads(Path(run.folder("synthesis"), ".manifest.json").read_text())
    for each in shards["shards"]:
        each["sha256"] = ""
    Path(run.folder("synthesis"), ".manifest.json").write_text(json.dumps(shards))
    write_table(table(12), shard)
    assert f"{shard}: 12 rows, expected 20" in told(run, capsys)


def never(work: str) -> dict:
    raise AssertionError("made again")


def test_a_stage_that_is_to_be_made_again_takes_with_it_what_was_made_of_it(run, capsys):
    digest = run.manifest()["stages"]["ingest"]["digest"]
    old = run.folder("finetune")
    assert redo(run.root, ["finetune"], Progress()) == ["finetune", "synthesis", "selection"]
    said = capsys.readouterr().err
    assert "synthesis: forgotten, for it was made of those" in said
    assert list(run.manifest()["stages"]) == ["ingest"] and not sizes_below(old)
    assert not [name for name in sizes_below(run.root) if "adapters" in name or "synth" in name]
    assert run.stage("ingest", {"after": {}}, never).skipped
    again = run.stage("finetune", {"after": {"ingest": digest}}, finetune)
    assert not again.skipped and again.path == old
    verify(run.root, Progress(), print)


def test_what_cannot_be_forgotten_is_refused(tmp_path):
    run = made(str(tmp_path))
    with pytest.raises(ConfigError, match=r"--redo: got 'search'; expected .*ingest, finetune"):
        redo(run.root, ["search"], Progress())
    lease = Lease(run.root)
    lease.take(Progress())
    with pytest.raises(ConfigError, match="is being run by process"):
        redo(run.root, ["ingest"], Progress())
    lease.release()
    assert list(run.manifest()["stages"]) == list(STAGES)
    with pytest.raises(ConfigError, match="no run is there"):
        verify(f"{tmp_path}/nothing", Progress())


def test_the_command_takes_a_folder_or_a_configuration(tmp_path, monkeypatch, capsys):
    run = made(str(tmp_path))

    def ended(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raysynth", "verify", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    assert ended(run.root)[0] == ended(f"storage_path={tmp_path}", "name=t")[0] == 0
    (Path(run.folder("selection")) / "selection.parquet").write_bytes(b"")
    code, out, err = ended(f"{run.root}/")
    assert code == 2 and "selection.parquet has 0 bytes, expected" in out
    fix = f"Fix: raysynth verify {run.root} --redo selection, then run it again"
    assert fix in err and len(err.splitlines()) == 1
    assert ended(run.root, "--redo", "selection")[0] == ended(run.root)[0] == 0
    assert read_table(run.folder("synthesis")).num_rows == 60
