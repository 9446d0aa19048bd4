"""`raysynth run --dry-run`: what each stage would do, and nothing is written."""

from __future__ import annotations

import json

import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, DataError
from raysynth.method import nodes_of
from raysynth.rehearsal import in_lines, rehearse
from raysynth.stages.record import MANIFEST

SETTINGS = ["dataset.train_images=160", "dataset.severity=0.8", "dataset.validation_images=40"]


def config_at(folder, *more):
    return load_config(None, [f"storage_path={folder}", *SETTINGS, *more])


def test_a_run_that_never_was_is_new_and_nothing_is_written(tmp_path):
    found = rehearse(config_at(tmp_path))
    assert set(found.stages.values()) == {"new"}
    assert list(found.stages)[:: len(found.stages) - 1] == ["ingest", "report"]
    assert list(tmp_path.iterdir()) == []
    assert any("validation" in line for line in in_lines(found) if line.startswith("warning: "))


def test_stages_are_unchanged_go_on_or_are_made_again(tmp_path):
    config = config_at(tmp_path)
    digests = {node.name: node.digest for node in nodes_of(config)}
    root = tmp_path / config.name
    (root / "real").mkdir(parents=True)
    (root / "real/train-00000.parquet").write_bytes(b"1234")
    record = {"seconds": 1.0, "facts": {}, "inputs": {}, "folder": "real"}
    whole = record | {"digest": digests["ingest"], "sizes": {"train-00000.parquet": 4}}
    other = record | {"digest": "0" * 16, "folder": "clusters", "sizes": {}}
    manifest = {"stages": {"ingest": whole, "clustering": other}}
    (root / MANIFEST).write_text(json.dumps(manifest))
    (root / ".partial" / f"finetune-{digests['finetune']}").mkdir(parents=True)
    found = rehearse(config).stages
    assert found["ingest"] == "unchanged" and found["finetune"] == "goes on where it was"
    assert found["clustering"].startswith("again: settings") and found["report"] == "new"
    (root / "real/train-00000.parquet").write_bytes(b"12")
    assert rehearse(config).stages["ingest"].startswith("again: ")
    assert list(rehearse(config, "clustering").stages) == ["ingest", "clustering"]


def test_what_the_run_would_refuse_is_refused(tmp_path):
    with pytest.raises(DataError, match="fewer training images than clusters"):
        rehearse(config_at(tmp_path, "clustering.k=30", "dataset.severity=0.9"))
    with pytest.raises(ConfigError, match="until: got 'nothing'"):
        rehearse(config_at(tmp_path), "nothing")
