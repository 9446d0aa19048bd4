"""Going on with runs of `train` and `generate` by what their folder keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raysynth.adapter_runs.settings import TrainConfig, read_train
from raysynth.again import configuration_again, resumed
from raysynth.config.config import Config
from raysynth.config.files import read_config
from raysynth.errors import ConfigError
from raysynth.progress import USUAL
from raysynth.prompt_runs.settings import GenerateConfig, read_generate


def written(config, folder: Path) -> str:
    """The folder of a run that was moved since it was made."""
    folder.mkdir()
    text = yaml.safe_dump(config.model_dump(mode="json"))
    (folder / "config.yaml").write_text(text)
    return str(folder)


def test_the_command_that_wrote_a_folder_is_gone_on_with_where_it_lies(tmp_path):
    root = written(read_train("pets", ["seed=3"], to="/gone/x"), tmp_path / "moved")
    found = configuration_again(root, ["finetune.steps=9"])
    assert isinstance(found, TrainConfig) and found.root == root
    assert (found.seed, found.finetune.steps, found.finetune.min_images) == (3, 9, 2)
    other = written(read_generate("p.csv", ["a"], ["count=2"]), tmp_path / "drawn")
    found = configuration_again(other)
    assert isinstance(found, GenerateConfig) and found.count == 2 and found.name == "drawn"


def test_runs_of_the_method_are_none_of_them(tmp_path):
    assert configuration_again(written(Config(), tmp_path / "whole")) is None
    assert not resumed(str(tmp_path / "nowhere"), (), USUAL, plainly=False)


def test_what_makes_another_run_or_asks_for_the_method_is_refused(tmp_path):
    root = written(read_train("pets"), tmp_path / "x")
    with pytest.raises(ConfigError, match="name: another name is another run"):
        configuration_again(root, ["name=y"])
    with pytest.raises(ConfigError, match="Did you mean `steps`"):
        configuration_again(root, ["finetune.stepz=1"])
    with pytest.raises(ConfigError, match="--submit, --until: are of `raysynth run`"):
        resumed(root, (), USUAL, plainly=False)
    with pytest.raises(ConfigError, match="written by `raysynth train`"):
        read_config(f"{root}/config.yaml")
