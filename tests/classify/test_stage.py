"""The classification stage as a whole, on tiny tables and a real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification

from raysynth.classify import run_classification, stage
from raysynth.classify.final import Final, shipped_index
from raysynth.classify.recipe import configured
from raysynth.errors import StageError
from raysynth.progress import Progress
from tests.classify.test_backbone import tiny_transformer
from tests.classify.tiny import tiny_config, tiny_groups, write_tiny_run

REFERENCES = ["erm", "balanced", "group_dro", "erm_balanced_head"]


def run(tmp_path: Path, groups=None, *overrides: str):
    config = tiny_config(*overrides)
    groups = groups or tiny_groups()
    folders = write_tiny_run(str(tmp_path), groups)
    search = tmp_path / "search"
    search.mkdir(exist_ok=True)
    parameters = configured(config.classifier) | {"ratio": 0.25}
    (search / "best.json").write_text(json.dumps({"trial": "x", "parameters": parameters}))
    work = tmp_path / "work"
    facts = run_classification(
        config, *folders.values(), str(search), groups, str(work), Progress()
    )
    return facts, work


def test_results_model_card_and_resume(ray_local, tmp_path):
    facts, work = run(tmp_path)
    results = json.loads((work / "results.json").read_text())
    assert list(results["methods"]) == [*REFERENCES, "raysynth"]
    assert facts["rows"] == 10
    for method in results["methods"].values():
        for key in ("wga", "aga", "weighted"):
            assert set(method[key]) == {"mean", "std", "seeds"} and len(method[key]["seeds"]) == 2
            assert len(method["validation"][key]["seeds"]) == 2
        assert set(method["groups"]) == {"a/1", "a/2", "b/1", "b/2"}
        assert len(method["chosen"]["stopped_at"]) == 2
    assert len(results["tuning"]) == 2 * (1 + 1 + 1 + 4)  # two weight decays, the heads of each
    assert results["methods"]["raysynth"]["chosen"]["ratio"] == 0.25

    card = (work / "model" / "README.md").read_text()
    for word in ("Intended use", "Limits", "Data set", "WGA", "| a/1 | 24 |"):
        assert word in card
    model = AutoModelForImageClassification.from_pretrained(work / "model")
    assert model.config.id2label == {0: "a", 1: "b"}

    units = {file: file.stat().st_mtime_ns for file in (work / "units").iterdir()}
    _, work = run(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in (work / "units").iterdir()} == units
    assert json.loads((work / "results.json").read_text()) == results


def test_lost_units_are_trained_again_with_the_same_numbers(ray_local, tmp_path):
    references = "classifier.references=[erm]"
    _, work = run(tmp_path, None, references)
    results = (work / "results.json").read_text()
    lost = sorted((work / "units").glob("*.json"))[::2]
    for file in lost:
        file.unlink()
    _, work = run(tmp_path, None, references)
    assert (work / "results.json").read_text() == results
    assert all(file.exists() for file in lost)


def test_a_frozen_encoder_through_the_stage(ray_local, tmp_path):
    folder = tiny_transformer("resnet", str(tmp_path / "resnet"))
    frozen = [f"classifier.backbone={folder}", "classifier.steps=0", "classifier.references=[]"]
    facts, work = run(tmp_path, None, *frozen)
    results = json.loads((work / "results.json").read_text())
    assert facts["rows"] == 2
    assert results["methods"]["raysynth"]["wga"]["std"] == 0.0  # one encoder, whatever the seed
    saved = AutoModelForImageClassification.from_pretrained(work / "model").state_dict()
    loaded = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[k], v) for k, v in loaded.items() if "classifier" not in k)


def test_three_by_two_groups_and_no_references(ray_local, tmp_path):
    facts, work = run(tmp_path, tiny_groups(3, 2), "classifier.references=[]")
    results = json.loads((work / "results.json").read_text())
    assert list(facts["methods"]) == ["raysynth"]
    assert len(results["methods"]["raysynth"]["groups"]) == 6


def test_failed_trainings_are_named_and_the_others_kept(ray_local, tmp_path):
    with pytest.raises(StageError, match=r"trainings failed .*not finite"):
        run(
            tmp_path,
            None,
            "classifier.references=[erm]",
            "classifier.reference_weight_decays=[0.1, 1.0e+38]",
        )
    assert len(list((tmp_path / "work" / "units").glob("*.json"))) >= 3


def test_the_best_validation_seed_is_shipped_whatever_test_says():
    def final(method: str, wga: float) -> Final:
        metrics = {"groups": {"g": wga}, "wga": wga, "aga": wga, "weighted": wga}
        return Final(method, {"best": {"h": {"step": 1, "validation": metrics}}}, "h")

    finals = [final("erm", 0.99), final("raysynth", 0.6), final("raysynth", 0.7)]
    assert shipped_index(finals, stage.OURS) == 2
