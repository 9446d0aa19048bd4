"""The references and the classification stage as a whole, on tiny tables and a real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from raysynth.classify.stage import run_classification
from raysynth.errors import StageError
from raysynth.evaluation.results import read_truth
from raysynth.progress import Progress
from raysynth.references.stage import run_references
from raysynth.storage.tables import read_table
from raysynth.training.data import load_real
from raysynth.training.two_stage import configured
from tests.networks.test_build import tiny_transformer
from tests.training.tiny import tiny_config, tiny_groups, write_tiny_run

REFERENCES = ["erm", "resampling", "subsampling", "group_dro", "erm_balanced_head"]
NONE = "references.names=[]"


def references(tmp_path: Path, groups=None, *overrides: str):
    folders = write_tiny_run(str(tmp_path), groups)
    work = tmp_path / "references"
    facts = run_references(
        tiny_config(*overrides), folders["real"], groups or tiny_groups(), str(work), Progress()
    )
    return facts, work


def run(tmp_path: Path, groups=None, *overrides: str, **parameters: float):
    """Both stages; facts and folder of the second."""
    references(tmp_path, groups, *overrides)
    return classified(tmp_path, groups, *overrides, **parameters)


def classified(tmp_path: Path, groups=None, *overrides: str, **searched: float):
    """The second stage; `searched`: other parameters than those of the configuration."""
    config = tiny_config(*overrides)
    search = tmp_path / "search"
    search.mkdir(exist_ok=True)
    parameters = configured(config.classifier) | {"ratio": 0.25} | searched
    (search / "best.json").write_text(json.dumps({"trial": "x", "parameters": parameters}))
    work = tmp_path / "work"
    facts = run_classification(
        config,
        *(str(tmp_path / name) for name in ("real", "synthetic", "selection")),
        str(search),
        str(tmp_path / "references"),
        groups or tiny_groups(),
        str(work),
        Progress(),
    )
    return facts, work


def read(work: Path) -> dict:
    return json.loads((work / "results.json").read_text())


def stamps(work: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (work / "units").iterdir()}


def test_results_model_card_and_resume(ray_local, tmp_path):
    facts, work = run(tmp_path)
    results = read(work)
    assert list(results["methods"]) == [*REFERENCES, "raysynth"]
    assert facts["rows"] == 2
    for method in results["methods"].values():
        for key in ("wga", "aga", "weighted", "equalized_odds", "demographic_parity"):
            assert set(method[key]) == {"mean", "std", "seeds"} and len(method[key]["seeds"]) == 2
        for key in ("wga", "aga", "weighted"):
            assert len(method["validation"][key]["seeds"]) == 2
            assert key == "weighted" or len(method["interval"][key]) == 2
        assert set(method["groups"]) == {"a/1", "a/2", "b/1", "b/2"}
        assert len(method["chosen"]["stopped_at"]) == 2
        assert method["source"] and not method["uses_validation"]
    heads = [4 if name == "erm_balanced_head" else 1 for name in REFERENCES]
    assert len(results["tuning"]) == 2 * sum(heads)  # two weight decays, the heads of each
    budgets = [results["methods"][name]["budget"] for name in REFERENCES]
    assert {(one["trainings"], one["stopping_points"]) for one in budgets} == {(2, 4)}
    assert results["methods"]["raysynth"]["chosen"]["ratio"] == 0.25
    assert "validation worst-group accuracy" in results["selection_rule"]

    card = (work / "model" / "README.md").read_text()
    named = ("Intended use", "Limits", "Data set", "WGA", "| a/1 | 24 |", "Why this model")
    for word in (*named, "trust_remote_code=True"):
        assert word in card
    assert facts["shipped"] == results["shipped"] and results["shipped"]["words"][9:40] in card
    assert all(len(method["units"]) == 2 for method in results["methods"].values())
    model = AutoModelForImageClassification.from_pretrained(work / "model")
    assert model.config.id2label == {0: "a", 1: "b"}

    before = stamps(work), stamps(tmp_path / "references")
    _, work = run(tmp_path)
    assert (stamps(work), stamps(tmp_path / "references")) == before
    assert read(work) == results


def test_predictions_give_the_numbers_again(ray_local, tmp_path):
    _, work = run(tmp_path, None, "references.names=[erm]")
    table = read_table(str(work), files=[str(work / "predictions.parquet")]).to_pandas()
    assert table.groupby("method").seed.nunique().to_dict() == {"erm": 2, "raysynth": 2}
    truth = read_truth(str(tmp_path / "real"), np.array([24, 4, 4, 24]), tiny_groups())
    for method, values in read(work)["methods"].items():
        for seed in range(2):
            mine = table[(table.method == method) & (table.seed == seed)].set_index("id")
            again = truth.measures(mine.loc[truth.ids, "predicted"].to_numpy())
            for key in ("wga", "aga", "equalized_odds"):
                assert again[key] == values[key]["seeds"][seed]


@pytest.mark.slow
def test_validation_training_references_and_mixtures(ray_local, tmp_path):
    overrides = (
        "references.names=[jtt, dfr_train, dfr_validation, self]",
        "classifier.mixtures=[ffr, usb, asb]",
        "references.weight_decays=[0.1]",
    )
    facts, work = run(tmp_path, None, *overrides)
    methods = read(work)["methods"]
    assert {n for n, m in methods.items() if m["uses_validation"]} == {"dfr_validation", "self"}
    assert {n for n, m in methods.items() if m["kind"] == "mixture"} == {"ffr", "usb", "asb"}
    assert facts["rows"] == 2 * 4
    assert methods["asb"]["synthetic"] == {"wanted": 40, "used": 32}  # 8 of each group were kept
    assert len(methods["dfr_validation"]["chosen"]["C"]) == 2


def test_lost_units_are_trained_again_with_the_same_numbers(ray_local, tmp_path):
    _, work = references(tmp_path, None, "references.names=[erm]")
    results = read(work)
    lost = sorted((work / "units").glob("*.json"))[::2]
    for file in lost:
        file.unlink()
    _, work = references(tmp_path, None, "references.names=[erm]")
    again = read(work)
    for report in (results, again):
        report["methods"]["erm"].pop("training_seconds")
    assert again == results
    assert all(file.exists() for file in lost)


def test_a_frozen_encoder_through_the_stage(ray_local, tmp_path):
    folder = tiny_transformer("resnet", str(tmp_path / "resnet"))
    frozen = [f"classifier.backbone={folder}", "classifier.steps=0", NONE]
    facts, work = run(tmp_path, None, *frozen, "classifier.head_real_share=0.25")
    assert facts["rows"] == 2
    assert read(work)["methods"]["raysynth"]["wga"]["std"] == 0.0  # one encoder, any seed
    saved = AutoModelForImageClassification.from_pretrained(work / "model").state_dict()
    loaded = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[k], v) for k, v in loaded.items() if "classifier" not in k)
    card = (work / "model" / "README.md").read_text()
    assert "real training images (weight 0.25) and the synthetic ones (weight 0.75)" in card
    assert "import raysynth" not in card  # transformers knows the model


@pytest.mark.parametrize("schedule", ["full", "joint"])
def test_other_schedules_and_three_by_two_groups(ray_local, tmp_path, schedule):
    overrides = (NONE, f"classifier.schedule={schedule}")
    facts, work = run(tmp_path, tiny_groups(3, 2), *overrides)
    assert list(facts["methods"]) == ["raysynth"]
    assert len(read(work)["methods"]["raysynth"]["groups"]) == 6
    words = "trained all weights" if schedule == "full" else "together"
    assert words in (work / "model" / "README.md").read_text()


def test_failed_trainings_are_named_and_the_others_kept(ray_local, tmp_path):
    bad = ("references.names=[erm]", "references.weight_decays=[0.1, 1.0e+38]")
    with pytest.raises(StageError, match=r"trainings failed .*not finite"):
        references(tmp_path, None, *bad)
    assert len(list((tmp_path / "references" / "units").glob("*.json"))) == 1


def predicted_by(folder: Path, real: str) -> np.ndarray:
    """[M] labels of the test images by a folder of save_pretrained, as anyone would load it."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (processor.image_mean, processor.image_std)
    )
    pixels = torch.tensor(load_real(real, "test", None).pixels)
    with torch.no_grad():
        return model((pixels / 255 - mean) / std).logits.argmax(dim=1).numpy()


def test_a_reference_that_wins_is_shipped_and_predicts_what_it_was_measured_by(ray_local, tmp_path):
    untrained = {"learning_rate": 1e-9, "head_weight_decay": 1e9}
    overrides = ("references.names=[resampling, erm_balanced_head]", "references.steps=30")
    facts, work = run(tmp_path, None, *overrides, **untrained)
    results = read(work)
    shipped, methods = results["shipped"], results["methods"]
    assert shipped == facts["shipped"] and shipped["kind"] == "reference"
    scores = {name: values["validation"]["wga"]["mean"] for name, values in methods.items()}
    assert scores[shipped["name"]] == max(scores.values()) > scores["raysynth"]
    assert "Synthesis does not pay here" in shipped["words"]
    table = read_table(str(work), files=[str(work / "predictions.parquet")]).to_pandas()
    mine = table[(table.method == shipped["name"]) & (table.seed == shipped["seed"])]
    truth = read_truth(str(tmp_path / "real"), np.array([24, 4, 4, 24]), tiny_groups())
    expected = mine.set_index("id").loc[truth.ids, "predicted"].to_numpy()
    assert len(set(expected)) == 2
    np.testing.assert_array_equal(predicted_by(work / "model", str(tmp_path / "real")), expected)
    card = (work / "model" / "README.md").read_text()
    assert "Synthetic images: none" in card and "on the real images alone, as a reference" in card


def test_references_of_an_earlier_version_that_name_no_training_are_shipped_too(
    ray_local, tmp_path
):
    references(tmp_path, None, "references.names=[erm_balanced_head]", "references.steps=30")
    path = tmp_path / "references" / "results.json"
    report = json.loads(path.read_text())
    del report["methods"]["erm_balanced_head"]["units"]
    path.write_text(json.dumps(report))
    untrained = {"learning_rate": 1e-9, "head_weight_decay": 1e9}
    config = ("references.names=[erm_balanced_head]", "references.steps=30")
    facts, work = classified(tmp_path, None, *config, **untrained)
    assert facts["shipped"]["name"] == "erm_balanced_head"
    assert "last layer: balanced-" in (work / "model" / "README.md").read_text()
