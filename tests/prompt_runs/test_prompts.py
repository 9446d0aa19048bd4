"""Files of prompts, and the plan that they are: rows, adapters, seeds, numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from raysynth.errors import ConfigError, DataError
from raysynth.prompt_runs.prompts import adapters_of, read_prompts
from raysynth.prompt_runs.rows import Drawn, Rows
from raysynth.prompt_runs.settings import read_generate


def read(path, *settings):
    return read_prompts(read_generate(str(path), (), settings))


def test_csv_and_parquet_say_the_same(tmp_path):
    table = pd.DataFrame(
        {
            "prompt": ["a cat", "a dog,  wet"],
            "negative_prompt": [None, "blurry"],
            "seed": [None, 2**60],
            "count": [3, None],
            "other": [1, 2],
        }
    ).astype({"seed": "Int64", "count": "Int64"})
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_parquet(tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        found = read(tmp_path / name, "count=2")
        assert found.rows.to_dict("list") == {
            "prompt": ["a cat", "a dog, wet"],
            "negative": ["", "blurry"],
            "adapter": ["", ""],
            "seed": [-1, 2**60],
            "count": [3, 2],
        }
        assert found.images == 5 and found.paths == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text\na\n", "columns text; expected a column `prompt`"),
        ("prompt\n", "no rows"),
        ("prompt,seed\na,\n,3\n", "1 row.* without a prompt, the first is row 2"),
        ("prompt,seed\na,1.5\n", r"row 1: seed '1\.5'; expected a whole number from 0 on"),
        ("prompt,count\na,0\n", "row 1: count '0'; expected a whole number from 1 on"),
        ("prompt,seed\na,-4\n", "seed '-4'"),
        ("prompt,seed\na,99999999999999999999\n", "seed '9999"),
        ('prompt\n"a\n', "cannot be read as Parquet or CSV"),
    ],
)
def test_what_is_no_table_of_prompts_is_refused(tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "p.csv")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a file"):
        read(tmp_path / "none.parquet")


def test_rows_are_drawn_with_the_adapters_that_they_name_or_with_every_one(tmp_path):
    text = "prompt,adapter\na,\nb,cat\nc,more/dog.safetensors\n"
    (tmp_path / "p.csv").write_text(text)
    config = read_generate(f"{tmp_path}/p.csv", ["/x/cat", "/x/bird"])
    prompts = read_prompts(config)
    dog = f"{tmp_path}/more/dog.safetensors"
    assert prompts.paths == ("/x/cat", "/x/bird", dog), "relative to the file of prompts"
    given = {"/x/cat": ("cat",), "/x/bird": ("bird",), dog: ("dog",)}
    found = adapters_of(prompts, ["cat", "bird", "dog"], given)
    assert found == [("cat", "bird"), ("cat",), ("dog",)]
    with pytest.raises(DataError, match=r"row 1: adapter 'cat'; expected one of bird, dog, or a"):
        adapters_of(prompts, ["bird", "dog"], given)


def rows() -> Rows:
    table = pd.DataFrame(
        {
            "prompt": ["a", "b"],
            "negative": ["", "n"],
            "adapter": "",
            "seed": [-1, 7],
            "count": [2, 3],
        }
    )
    drawn = Drawn("prompts", 4.0, 5, seed=1, negative=True)
    return Rows(("x", "y"), table, [("x", "y"), ("y",)], drawn)


def test_the_plan_is_by_adapter_prompt_and_number_whatever_part_is_asked_for():
    plan = rows()
    assert plan.counts.tolist() == [2, 5] and plan.groups.names == ["x", "y"]
    whole = plan.specs(0, 7)
    assert whole["id"].to_pylist() == [
        *("x-000000-0000", "x-000000-0001", "y-000000-0000", "y-000000-0001"),
        *("y-000001-0000", "y-000001-0001", "y-000001-0002"),
    ]
    assert whole["seed"].to_pylist()[4:] == [7, 8, 9]
    first = whole["seed"].to_pylist()[:4]
    assert first[:2] == first[2:] and first[0] != first[1], "the same noise for every adapter"
    assert whole["negative_prompt"].to_pylist() == [""] * 4 + ["n"] * 3
    for start in range(7):
        for stop in range(start + 1, 8):
            assert plan.specs(start, stop).equals(whole.slice(start, stop - start).combine_chunks())
    assert np.array_equal(whole["group"], [0, 0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "synthesis.images_per_group=3",
            "without use here: how many images are drawn says `count`",
        ),
        ("synthesis.schedule=karras", "it is measured on real images"),
        ("synthesis.guidance=[cell]", "asks for real images or for the words of groups"),
        ("finetune.rank=3", "finetune: unknown key"),
    ],
)
def test_settings_that_prompts_have_no_use_for_are_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        read_generate("p.csv", (), [setting])


def test_defaults_are_those_of_a_pipeline():
    config = read_generate("p.csv", ["a/b.safetensors"], ["base.name=owner/model"])
    assert (config.recipe.steps, config.recipe.guidance_scale, config.recipe.begins) == (20, 7.5, 1)
    assert [one.name for one in config.synthesis.guidance] == ["classifier_free"]
    assert not config.synthesis.guidance[0].given and config.name == "p"
    small = read_generate("p.csv").recipe
    assert (small.steps, small.guidance_scale, small.name) == (6, 2.0, "prompts")
