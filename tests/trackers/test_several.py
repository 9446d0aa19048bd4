"""Trackers of a run: event files, one of another package, and what happens when one fails."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.storage.files import sizes_below
from raysynth.trackers.kinds import tensorboard
from raysynth.trackers.several import open_trackers

LINES = """
    from raysynth.knobs import Section, knob
    from raysynth.trackers.tracker import Kind

    class Knobs(Section):
        file: str = knob("told.txt", "Where to.")
        sure: bool = knob(True, "Whether to write at all.")

    class Lines:
        def __init__(self, path, first):
            self.path = path
            self.tell(first)

        def tell(self, *what):
            with open(self.path, "a") as file:
                print(*what, file=file)

        def metrics(self, stage, step, values):
            self.tell(stage, step, dict(values))

        def record(self, stage, facts):
            if stage == "bad":
                raise OSError("no room")
            self.tell(stage, facts["rows"])

        def close(self):
            self.tell("closed")

    PART = Kind(
        "Lines", "a test", lambda folder, name, config, knobs: Lines(knobs.file, name), Knobs
    )
"""


def events(folder) -> list[Event]:
    """All events of the one event file in a folder."""
    [file] = folder.glob("events.out.*")
    data, found, place = file.read_bytes(), [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 8], "little")
        found.append(Event.FromString(data[place + 12 : place + 12 + size]))
        place += 16 + size
    return found


def scalars(folder) -> dict[str, tuple[int, float]]:
    """Tag -> step and value of the scalars in a folder's file."""
    values = [(e.step, v) for e in events(folder) for v in e.summary.value]
    found = {v.tag: (step, v.simple_value) for step, v in values if v.HasField("simple_value")}
    return {tag: each for tag, each in found.items() if not tag.startswith("_")}


def test_tensorboard_has_the_numbers_and_the_words(tmp_path):
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, str(tmp_path), "run", {"seed": 3}) as trackers:
        trackers.metrics("finetune", 7, {"loss": 0.25})
        trackers.record("ingest", {"rows": 56, "left_out": "none", "counts": {"test": 2}})
    whole = tmp_path / "trackers/tensorboard"
    assert scalars(whole) == {"finetune/loss": (7, 0.25), "ingest/rows": (0, 56.0)}
    values = [v for e in events(whole) for v in e.summary.value if v.HasField("tensor")]
    texts = {v.tag: v.tensor.string_val[0].decode() for v in values}
    assert '"seed": 3' in texts["config/text_summary"]
    assert '"left_out": "none"' in texts["ingest/text_summary"]


def told(trackers) -> None:
    """What a run tells of an adapter, a trial, a training and a method."""
    picture = np.zeros((8, 32, 3), np.uint8)
    trackers.metrics("finetune/3-0", 50, {"loss": 0.5})
    trackers.pictures("finetune/3-0", 50, {"preview": picture})
    for step, wga in ((10, 0.25), (20, 0.75)):
        trackers.metrics("search/trial-01", step, {"WGA": wga, "AGA": 0.875})
    settings = {"ratio": 0.5, "steps": 20, "head": None}
    trackers.tried("search/trial-01", settings, {"WGA": 0.75, "AGA": 0.875})
    trackers.metrics("references/erm, seed 0", 30, {"WGA": 0.0, "AGA": 0.5})
    trackers.metrics("test/erm", 0, {"test WGA": 0.125})
    trackers.record("search", {"rows": 1, "best": {"trial": "x"}})


def test_tensorboard_shows_adapters_trials_and_trainings_as_runs_of_one_chart(tmp_path):
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, str(tmp_path), "run") as trackers:
        told(trackers)
    whole = tmp_path / "trackers/tensorboard"
    assert scalars(whole / "search/trial-01") == {"WGA": (20, 0.75), "AGA": (20, 0.875)}
    assert scalars(whole / "references/erm, seed 0")["AGA"] == (30, 0.5)
    assert scalars(whole / "finetune/3-0") == {"loss": (50, 0.5)}
    shown = {v.tag for e in events(whole / "finetune/3-0") for v in e.summary.value}
    assert "preview" in shown
    trial = {v.tag for e in events(whole / "search/trial-01") for v in e.summary.value}
    assert "_hparams_/session_start_info" in trial


def test_tensorboard_holds_few_files_open_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "OPEN", 2)
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, str(tmp_path), "run") as trackers:
        for step in (1, 2):
            for number in range(4):
                trackers.metrics(f"finetune/{number}-0", step, {"loss": 0.5})
    files = list((tmp_path / "trackers").rglob("finetune/0-0/events.*"))
    assert sum(path.stat().st_size > 0 for path in files) >= 1
    assert len(list((tmp_path / "trackers/tensorboard/finetune").iterdir())) == 4


def test_mlflow_has_nested_runs_pictures_and_artefacts(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    page = tmp_path / "index.html"
    page.write_text("the page")
    config = load_config(None, ["trackers=[mlflow]"])
    for _ in range(2):  # the second goes on
        said: list[str] = []
        given = (str(tmp_path), "birds", {"seed": 3, "search": {"trials": 2}}, said.append)
        with open_trackers(config.trackers, *given) as trackers:
            told(trackers)
            trackers.artefacts([str(page), f"{tmp_path}/away"])
        assert said == []
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("raysynth").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == {
        "birds",
        "finetune/3-0",
        "search/trial-01",
        "references/erm- seed 0",
        "test/erm",
    }
    trial, whole = runs["search/trial-01"], runs["birds"]
    assert trial.data.params["ratio"] == "0.5" and trial.data.metrics["final WGA"] == 0.75
    assert trial.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert whole.data.params["search.trials"] == "2" and whole.info.status == "FINISHED"
    kept = {each.path for each in client.list_artifacts(whole.info.run_id)}
    assert {"index.html", "stages"} <= kept
    assert client.list_artifacts(runs["finetune/3-0"].info.run_id)


def test_wandb_works_offline_and_keeps_its_files_with_the_run(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    page, said = tmp_path / "index.html", []
    page.write_text("the page")
    config = load_config(None, ["trackers=[wandb]"])
    with open_trackers(config.trackers, str(tmp_path), "birds", {"seed": 3}, said.append) as all_:
        told(all_)
        all_.artefacts([str(page)])
    assert said == [] and capfd.readouterr().out == ""
    (file,) = (tmp_path / "trackers/wandb").rglob("run-*.wandb")
    wanted = (b"finetune/3-0/loss", b"search/trial-01/WGA", b"trials", b"index-html")
    until = time.monotonic() + 60  # wandb's own process writes on after its run has ended
    while not all(each in file.read_bytes() for each in wanted) and time.monotonic() < until:
        time.sleep(0.1)
    assert [each for each in wanted if each not in file.read_bytes()] == []


def test_trackio_keeps_its_board_with_the_run(tmp_path):
    pytest.importorskip("trackio")
    script = """
import sys
from raysynth.config.files import load_config
from raysynth.trackers.several import open_trackers
from tests.trackers.test_several import told

config, said = load_config(None, ["trackers=[trackio]"]), []
with open_trackers(config.trackers, sys.argv[1], "birds", {"seed": 3}, said.append) as trackers:
    told(trackers)
assert said == [], said
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRACKIO")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    (base,) = (tmp_path / "trackers/trackio").glob("raysynth*.db")
    rows = sqlite3.connect(base).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"birds"}
    for expected in ("finetune/3-0/loss", "search/trial-01/WGA", "finetune/3-0/preview"):
        assert any(expected in str(metrics) for _, metrics in rows)


def test_a_tracker_has_a_folder_of_its_own_if_it_is_told_one(tmp_path):
    given = f"trackers=[{{name: tensorboard, folder: {tmp_path}/all}}]"
    config = load_config(None, [given])
    with open_trackers(config.trackers, str(tmp_path / "run"), "red"):
        pass
    assert events(tmp_path / "all/red") and not (tmp_path / "run").exists()
    assert load_config(None, [given]).trackers == config.trackers
    again = type(config).model_validate(config.model_dump(mode="json"))
    assert again.trackers == config.trackers


def test_files_of_a_run_on_an_object_store_are_sent_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, "memory://runs/red", "red", say=said.append) as trackers:
        told(trackers)
    there = sizes_below("memory://runs/red/trackers/tensorboard")
    assert {name.rpartition("/")[0] for name in there} >= {"", "finetune/3-0", "search/trial-01"}
    assert said == [] and not list(tmp_path.iterdir())


def test_one_of_another_package_that_fails_is_said_once_and_left(tmp_path, add_part):
    add_part("raysynth.trackers.kinds", "lines", LINES)
    given = f"{{name: lines, file: {tmp_path}/told.txt, sure: true}}"
    nowhere = f"{{name: lines, file: {tmp_path}/no/such/folder}}"
    config = load_config(None, [f"trackers=[{given}, {nowhere}, {given}]"])
    said: list[str] = []
    with open_trackers(config.trackers, str(tmp_path), "red", say=said.append) as trackers:
        trackers.record("ingest", {"rows": 3})
        trackers.record("bad", {})
        trackers.record("ingest", {"rows": 4})
    assert (tmp_path / "told.txt").read_text().split("\n") == ["red"] * 2 + ["ingest 3"] * 2 + [""]
    assert len(said) == 3 and all("the run goes on without it" in line for line in said)
    assert "FileNotFoundError" in said[0] and "no room" in said[1]


def test_an_unknown_tracker_and_unknown_knobs_are_refused():
    with pytest.raises(ConfigError, match=r"trackers.*expected one of .*tensorboard"):
        load_config(None, ["trackers=[tensorbord]"])
    with pytest.raises(ConfigError, match=r"trackers.*fold"):
        load_config(None, ["trackers=[{name: tensorboard, fold: x}]"])


def test_without_trackers_nothing_is_made_or_imported_and_digests_stay(tmp_path):
    with open_trackers((), str(tmp_path / "run"), "run") as trackers:
        trackers.record("ingest", {"rows": 1})
    assert not list(tmp_path.iterdir())
    told = load_config(None, ["trackers=[tensorboard]"])
    assert told.digest() == load_config(None, []).digest()
    code = (
        "import sys; from raysynth.config.files import load_config; "
        "load_config(None, ['trackers=[tensorboard]']); "
        "sys.exit('tensorboardX' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
