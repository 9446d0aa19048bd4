"""Control rows: what a model knows by itself, on tiny tables."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, ModelError
from raysynth.models import efficientnet_lite
from raysynth.networks.build import blueprint_of
from raysynth.planning.preflight import preflight
from raysynth.progress import Progress
from raysynth.references.checks import check
from raysynth.references.control import CONTROLS
from raysynth.references.control_row import run_control
from raysynth.references.stage import run_references
from tests.training.tiny import tiny_config, tiny_groups, write_tiny_run


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_control_fits_a_balanced_head_and_repeats_itself(tmp_path, name):
    folders = write_tiny_run(str(tmp_path))
    config = tiny_config()
    fixed = (config.references.head_weight_decays, folders["real"], tiny_groups(), 64, 1.0)
    first, again = (run_control(name, blueprint_of(config), *fixed) for _ in range(2))
    assert first["predicted"].shape == (32,)
    np.testing.assert_array_equal(first["predicted"], again["predicted"])
    assert first["chosen"]["head_weight_decay"] in config.references.head_weight_decays
    assert first["validation"]["aga"] > 0.5


def test_controls_are_rows_of_the_references_stage(ray_local, tmp_path):
    folders = write_tiny_run(str(tmp_path))
    config = tiny_config("references.names=[]", f"references.controls=[{', '.join(CONTROLS)}]")
    facts = run_references(
        config, folders["real"], tiny_groups(), str(tmp_path / "work"), Progress()
    )
    methods = json.loads((tmp_path / "work" / "results.json").read_text())["methods"]
    assert facts["rows"] == len(methods) and set(methods) == set(CONTROLS)
    assert {row["kind"] for row in methods.values()} == {"control"}
    assert all(len(row["wga"]["seeds"]) == 1 for row in methods.values())


def test_a_control_changes_no_other_row(ray_local, tmp_path):
    """Every run has one by default: its other numbers are those of a run without."""
    real, rows = write_tiny_run(str(tmp_path))["real"], []
    for position, controls in enumerate(("[]", "[clip_balanced_head]")):
        config = tiny_config("references.names=[erm]", f"references.controls={controls}")
        work = tmp_path / str(position)
        run_references(config, real, tiny_groups(), str(work), Progress())
        rows.append(json.loads((work / "results.json").read_text())["methods"])
        rows[-1]["erm"].pop("training_seconds")
    assert list(rows[1]) == ["erm", "clip_balanced_head"] and rows[0]["erm"] == rows[1]["erm"]
    assert load_config(None).references.controls == ("clip_balanced_head",)


def test_a_control_without_its_package_is_refused_before_anything_runs(monkeypatch):
    chosen = tiny_config("references.controls=[imagenet_balanced_head]")
    check(chosen)
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "of_another_world")
    with pytest.raises(ModelError, match=r"references\.controls: .*raysynth\[imagenet\]"):
        check(chosen)
    check(tiny_config("references.controls=[clip_balanced_head]"))


def test_the_base_classifier_needs_the_embedded_base():
    with pytest.raises(ConfigError, match="base_classifier needs"):
        load_config(None, ["references.controls=[base_classifier]", "base.name=owner/model"])


@pytest.mark.parametrize("start", ["classifier.start", "references.start"])
def test_a_pretrained_start_refuses_garments_that_it_knows(start):
    pair = ["dataset.pair=[pullover, shirt]", "dataset.train_images=80"]
    small = ["dataset.validation_images=40", "dataset.test_images=40", "dataset.severity=0.8"]
    with pytest.raises(ConfigError, match="trained on the garments shirt"):
        preflight(load_config(None, [*pair, *small, f"{start}=pretrained"]))


def test_a_pretrained_start_refuses_other_widths():
    with pytest.raises(ConfigError, match=r"classifier\.widths"):
        preflight(load_config(None, ["classifier.start=pretrained", "classifier.widths=[8, 16]"]))
