"""`raysynth export`: every trained method of a finished run, as anyone would load it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from raysynth.classify.stage import run_classification
from raysynth.cli import main
from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.export import export
from raysynth.method import nodes_of
from raysynth.pipeline import open_run
from raysynth.progress import Progress
from raysynth.references.stage import run_references
from raysynth.stages.run import Run
from raysynth.storage.tables import read_table
from raysynth.training.two_stage import configured
from tests.classify.test_stage import predicted_by
from tests.training.tiny import tiny_config, tiny_groups, write_tiny_run

METHODS = (
    "references.names=[resampling, erm_balanced_head]",
    "classifier.mixtures=[usb]",
    "references.weight_decays=[0.1]",
    "resources.workers=1",  # each takes seconds to start
    "name=tiny",
)


@pytest.fixture(scope="module")
def finished(ray_local, tmp_path_factory) -> tuple[Config, Run]:
    """A run whose references and classifiers are real; what is before them is made by hand."""
    folder = tmp_path_factory.mktemp("runs")
    config, groups = (
        tiny_config(f"storage_path={folder}", "references.controls=[]", *METHODS),
        tiny_groups(),
    )
    data, run = write_tiny_run(str(folder / "data")), open_run(config)
    inputs = {node.name: node.inputs for node in nodes_of(config)}

    def copied(name: str) -> Callable[[str], dict]:
        facts = {"groups": groups.to_dict(), "counts": {"validation": [6, 6, 6, 6]}}
        return lambda work: shutil.copytree(data[name], work, dirs_exist_ok=True) and facts

    def searched(work: str) -> dict:
        parameters = configured(config.classifier) | {"ratio": 0.25}
        Path(work, "best.json").write_text(json.dumps({"parameters": parameters}))
        return {}

    def classified(work: str) -> dict:
        read = ("ingest", "synthesis", "selection", "search", "references")
        return run_classification(config, *map(run.folder, read), groups, work, Progress())

    builds = {
        "ingest": copied("real"),
        "clustering": lambda work: {},
        "finetune": lambda work: {},
        "synthesis": copied("synthetic"),
        "selection": copied("selection"),
        "fidelity": lambda work: {},
        "references": lambda w: run_references(config, run.folder("ingest"), groups, w, Progress()),
        "search": searched,
        "classification": classified,
    }
    for name, build in builds.items():
        run.stage(name, inputs[name], build)
    return config, run


def measured(run: Run, method: str, seed: int) -> np.ndarray:
    """[M] what the run's table says of a classifier, in the order of the test images."""
    file = f"{run.folder('classification')}/predictions.parquet"
    table = read_table(run.folder("classification"), files=[file]).to_pandas()
    mine = table[(table.method == method) & (table.seed == seed)].set_index("id")
    ids = read_table(run.folder("ingest"), ["id", "split"]).to_pandas()
    return mine.loc[ids[ids.split == "test"].id, "predicted"].to_numpy()


@pytest.mark.parametrize("method", ["resampling", "erm_balanced_head", "usb", "raysynth"])
def test_every_trained_method_predicts_what_it_was_measured_by(finished, tmp_path, method):
    config, run = finished
    for seed in range(2):
        folder = tmp_path / str(seed)
        said = export(config, method, str(folder), seed)
        assert f", seed {seed}, validation WGA" in said and said.endswith(str(folder))
        expected = measured(run, method, seed)
        np.testing.assert_array_equal(predicted_by(folder, run.folder("ingest")), expected)
        card = (folder / "README.md").read_text()
        assert ("Synthetic images: none" in card) == (method not in ("usb", "raysynth"))


def test_what_is_shipped_is_what_is_exported_by_its_name(finished, tmp_path):
    config, run = finished
    results = json.loads(Path(run.folder("classification"), "results.json").read_text())
    shipped = results["shipped"]
    said = export(config, shipped["name"], str(tmp_path / "model"))
    assert f"seed {shipped['seed']}, " in said
    for file in ("model.safetensors", "README.md", "config.json"):
        own = Path(run.folder("classification"), "model", file).read_bytes()
        assert (tmp_path / "model" / file).read_bytes() == own


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and what is said of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["raysynth", "export", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out + said.err


def test_the_command_names_a_run_as_others_do(finished, tmp_path, monkeypatch, capsys):
    config, run = finished
    place = (f"storage_path={config.storage_path}", "name=tiny")
    code, said = command(monkeypatch, capsys, "usb", *place, "--to", str(tmp_path / "usb"))
    assert code == 0 and "USB mixing, seed " in said
    file = run.path("config.yaml")
    to = tmp_path / "again"
    code, said = command(monkeypatch, capsys, "usb", file, "--to", str(to), "--onnx")
    assert code == 0 and {"config.json", "model.onnx"} <= {path.name for path in to.iterdir()}
    assert "`model.onnx` takes `pixel_values`" in (to / "README.md").read_text()
    refusals = {
        ("usbs", *place, "--to", str(tmp_path / "a")): "Did you mean 'usb'?",
        ("xyz", *place, "--to", str(tmp_path / "a")): "expected one of resampling, erm_balanced_",
        ("usb", *place, "--to", str(tmp_path / "usb")): "is not empty",
        ("usb", *place): "--to: no folder given",
        ("usb", *place, "--to", str(tmp_path / "a"), "--seed", "7"): "has seeds of validation WGA",
        ("usb", place[0], "name=other", "--to", str(tmp_path / "a")): "no run is there",
        ("usb", *place, "classifier.steps=13", "--to", str(tmp_path / "a")): "classifier.steps=12",
    }
    for arguments, words in refusals.items():
        code, said = command(monkeypatch, capsys, *arguments)
        assert code == 2 and words in said, said
    assert not (tmp_path / "a").exists() and not Path(config.storage_path, "other").exists()


def test_a_control_and_a_run_that_is_not_through_are_refused(finished, tmp_path):
    config, run = finished
    copy = tmp_path / "tiny"
    shutil.copytree(run.root, copy)
    moved = config.model_copy(update={"storage_path": str(tmp_path)})
    results = copy / "classifier/results.json"
    report = json.loads(results.read_text())
    report["methods"]["clip"] = report["methods"]["usb"] | {"kind": "control"}
    results.write_text(json.dumps(report))
    with pytest.raises(ConfigError, match="clip is measured only, as controls are"):
        export(moved, "clip", str(tmp_path / "out"))
    manifest = json.loads((copy / "manifest.json").read_text())
    again = manifest["stages"]["ingest"] | {"digest": "other"}
    stages = {"stages": manifest["stages"] | {"ingest": again}}
    (copy / "manifest.json").write_text(json.dumps(stages))
    with pytest.raises(ConfigError, match="references was made with other settings"):
        export(moved, "usb", str(tmp_path / "out"))
    del manifest["stages"]["classification"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="has not finished the stage classification"):
        export(moved, "usb", str(tmp_path / "out"))


def test_a_run_of_an_earlier_version_names_no_trainings_and_is_exported(finished, tmp_path):
    config, run = finished
    shutil.copytree(run.root, tmp_path / "tiny")
    results = tmp_path / "tiny/classifier/results.json"
    report = json.loads(results.read_text())
    del report["shipped"]
    for row in report["methods"].values():
        del row["units"]
    results.write_text(json.dumps(report))
    moved = config.model_copy(update={"storage_path": str(tmp_path)})
    export(moved, "erm_balanced_head", str(tmp_path / "out"), 1)
    expected = measured(run, "erm_balanced_head", 1)
    np.testing.assert_array_equal(predicted_by(tmp_path / "out", run.folder("ingest")), expected)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the version that made this run always shipped raysynth's own" in card


def test_from_one_bucket_to_another_place(finished, s3, tmp_path):
    config, run = finished
    storage = fsspec.filesystem("s3")
    storage.put(run.root, f"{s3}/tiny", recursive=True)
    away = config.model_copy(update={"storage_path": s3})
    export(away, "resampling", f"{s3}/exported/model")
    assert storage.exists(f"{s3}/exported/model/model.safetensors")
    with pytest.raises(ConfigError, match="is not empty"):
        export(away, "resampling", f"{s3}/exported/model")
