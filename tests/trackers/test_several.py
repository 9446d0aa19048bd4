"""Trackers of a run: event files, one of another package, and what happens when one fails."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
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
    """All events of the one event file below a folder."""
    [file] = folder.rglob("events.out.*")
    data, found, place = file.read_bytes(), [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 8], "little")
        found.append(Event.FromString(data[place + 12 : place + 12 + size]))
        place += 16 + size
    return found


def test_tensorboard_has_the_numbers_and_the_words(tmp_path):
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, str(tmp_path), "run", {"seed": 3}) as trackers:
        trackers.metrics("finetune", 7, {"loss": 0.25})
        trackers.record("ingest", {"rows": 56, "left_out": "none", "counts": {"test": [1, 2]}})
    values = [(e.step, v) for e in events(tmp_path / "trackers") for v in e.summary.value]
    scalars = {v.tag: (step, v.simple_value) for step, v in values if v.HasField("simple_value")}
    assert scalars == {"finetune/loss": (7, 0.25), "ingest/rows": (0, 56.0)}
    texts = {v.tag: v.tensor.string_val[0].decode() for _, v in values if v.HasField("tensor")}
    assert '"seed": 3' in texts["config/text_summary"]
    assert '"left_out": "none"' in texts["ingest/text_summary"]


def test_a_tracker_has_a_folder_of_its_own_if_it_is_told_one(tmp_path):
    given = f"trackers=[{{name: tensorboard, folder: {tmp_path}/all}}]"
    config = load_config(None, [given])
    with open_trackers(config.trackers, str(tmp_path / "run"), "red"):
        pass
    assert events(tmp_path / "all/red") and not (tmp_path / "run").exists()
    assert load_config(None, [given]).trackers == config.trackers
    again = type(config).model_validate(config.model_dump(mode="json"))
    assert again.trackers == config.trackers


def test_files_of_a_run_that_is_stored_elsewhere_are_here_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    config = load_config(None, ["trackers=[tensorboard]"])
    with open_trackers(config.trackers, "memory://runs/red", "red", say=said.append):
        pass
    assert len(said) == 1 and f"{tmp_path}/trackers/red" in said[0]
    assert events(tmp_path / "trackers/red")


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
    with pytest.raises(ConfigError, match=r"trackers.*expected one of tensorboard"):
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
