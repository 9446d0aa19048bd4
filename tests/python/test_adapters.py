"""`raysynth.train` and `raysynth.generate`, as docs/python.md tells them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd
import pytest

import raysynth
from raysynth.python.adapters import _kept, _paths
from raysynth.storage.tables import read_table
from tests.adapter_runs.folders import write_folders

ROOT = Path(__file__).parents[2]
SMALL = ("finetune.steps=2", "finetune.batch_size=2", "finetune.preview_steps=0", "trackers=[]")


def test_adapters_are_a_path_several_or_what_train_gave(tmp_path):
    assert _paths("a") == ["a"] and _paths(tmp_path) == [str(tmp_path)]
    assert _paths(["a", tmp_path]) == ["a", str(tmp_path)] and _paths(()) == []


def test_prompts_that_are_no_file_are_kept_with_the_run(tmp_path):
    path = _kept(["a", "b"], str(tmp_path / "x"))
    assert read_table(str(tmp_path / "x"), files=[path]).to_pydict() == {"prompt": ["a", "b"]}
    table = pd.DataFrame({"prompt": ["c"], "seed": [3]})
    path = _kept(table, str(tmp_path / "y"))
    assert read_table(str(tmp_path / "y"), files=[path]).to_pydict() == table.to_dict("list")


def test_refusals_are_the_commands(tmp_path):
    with pytest.raises(raysynth.ConfigError, match="Did you mean `rank`"):
        raysynth.train(tmp_path, "finetune.rnk=3")
    with pytest.raises(raysynth.DataError, match="no image"):
        raysynth.train(tmp_path, to=f"{tmp_path}/../{tmp_path.name}-run", quiet=True)


@pytest.mark.slow
def test_the_page_of_python_as_it_stands(tmp_path, ray_local, monkeypatch):
    """But for the size of the training."""
    text = (ROOT / "docs/python.md").read_text()
    (block,) = re.findall(r"```python\n(adapters = raysynth\.train.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path / "things", {"coat": 2, "bag": 2})
    small = ", ".join(f'"{each}"' for each in SMALL)
    block = block.replace('"finetune.rank=16"', f'"finetune.rank=16", {small}')
    told = {"raysynth": raysynth}
    exec(block.replace('"count=4"', '"count=4", "synthesis.steps=2"'), told)
    assert list(told["adapters"].folders) == ["bag", "coat"]
    assert told["drawn"].count == 8 and len(told["best"]) == 8
    assert os.path.isdir("runs/bags/images")
