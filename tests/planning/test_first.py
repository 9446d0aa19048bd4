"""`raysynth init`: what is found, what is written, and that it can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, DataError
from raysynth.planning.first import begin
from raysynth.planning.plan import plan_run
from raysynth.planning.proposal import APART, propose
from raysynth.planning.recognised import layout_in
from tests.datasets.test_hub import write_file
from tests.datasets.test_published import write_celeba, write_utkface, write_waterbirds
from tests.datasets.trees import write_tree

GROUPS = {"cat/day": 40, "cat/night": 12, "dog/day": 12, "dog/night": 40}
GARMENTS = {"coat/grass": 12, "coat/gravel": 20, "pullover/grass": 20, "pullover/gravel": 12}


def test_what_is_written_can_be_planned_and_says_what_the_plan_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = list(begin(str(write_tree(tmp_path / "pets", GROUPS)), gpu=False))
    text = Path("pets.yaml").read_text()
    config = load_config("pets.yaml")
    assert config.dataset.name == "tree" and config.dataset.path == str(tmp_path / "pets")
    assert config.prompts.template == APART
    plan = plan_run(config)
    for group in plan.generators["lora"].groups:
        assert f"{group.name} " in text and group.prompt in text
    assert "cat/night 2: each of those is 50 points" in "\n".join(told)
    assert any("written: pets.yaml" in line for line in told)
    with pytest.raises(ConfigError, match="is there already"):
        list(begin(str(tmp_path / "pets"), gpu=False))
    assert Path("pets.yaml").read_text() == text


def test_the_embedded_base_is_for_its_own_words_and_a_gpu_for_the_others(tmp_path):
    garments = propose(str(write_tree(tmp_path / "garments", GARMENTS)), gpu=True)
    assert garments.recipe == "embedded" and garments.config.dataset.image_size == 32
    assert garments.config.prompts.template.endswith("on {attribute}")
    pets = str(write_tree(tmp_path / "pets", GROUPS))
    assert propose(pets, gpu=True).config.resources.gpus_per_worker == 1
    cpu = propose(pets, gpu=False).config
    assert cpu.search.steps == (0, 0) and cpu.synthesis.images_per_group < 100


def test_labels_alone_become_unknown_attributes(tmp_path):
    found = propose(str(write_tree(tmp_path / "pets", {"cat": 60, "dog": 60})), gpu=True)
    assert found.settings["dataset"]["attributes"] == "unknown"
    assert found.config.grouping.method.name == "conflict_mining"


@pytest.mark.parametrize("sizes", [{"cat/day": 60, "dog/day": 60}, {"cat": 60, "dog": 60}])
def test_images_of_one_attribute_are_refused_with_what_would_do(tmp_path, monkeypatch, sizes):
    monkeypatch.chdir(tmp_path)
    refused = r"what the labels wrongly go with.*<label>/<attribute>/.*vocabulary"
    with pytest.raises(DataError, match=refused):
        list(begin(str(write_tree(tmp_path / "pets", sizes)), gpu=False))
    assert not Path("pets.yaml").exists()


def test_every_layout_recognises_its_own_folder(tmp_path):
    write_waterbirds(tmp_path / "waterbirds", each=3)
    write_celeba(tmp_path / "celeba")
    write_utkface(tmp_path / "utkface")
    write_file(tmp_path / "hub/data/train.parquet", 3)
    write_tree(tmp_path / "tree", GROUPS)
    write_tree(tmp_path / "folder/images", {"x": 2})
    (tmp_path / "folder/metadata.csv").write_text("file_name,label,attribute\n")
    for name in ("waterbirds", "celeba", "utkface", "hub", "tree", "folder"):
        assert layout_in(str(tmp_path / name)) == name
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="in none of the layouts that are read"):
        layout_in(str(tmp_path / "none"))
    with pytest.raises(DataError, match="not a folder"):
        layout_in(str(tmp_path / "gone"))


def test_a_group_without_training_images_is_refused_with_what_would_do(tmp_path):
    sizes = {f"{split}/{name}": 4 for split in ("train", "validation", "test") for name in GROUPS}
    del sizes["train/cat/night"]
    with pytest.raises(DataError, match=r"cat/night.*one of them is enough.*drawn by the model"):
        propose(str(write_tree(tmp_path, sizes)))
