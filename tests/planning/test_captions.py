"""What a plan says of captions: how many, the fewest of a group, those that are cut."""

from __future__ import annotations

import pytest

from raysynth.config.files import load_config
from raysynth.datasets.listing import list_dataset
from raysynth.errors import ConfigError
from raysynth.planning import sizes
from raysynth.planning.captions import told_of_captions
from raysynth.planning.plan import plan_run
from tests.datasets.trees import write_tree

LEAVES = {f"{y}/{a}": 20 for y in ("coat", "pullover") for a in ("grass", "gravel")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts beside all images but the first of each leaf; those of one group are longer."""
    root = write_tree(tmp_path_factory.mktemp("tree"), LEAVES)
    for leaf in LEAVES:
        for n in range(1, 20):
            text = ("worn " * 40 if leaf == "coat/gravel" else "worn ") + ("in" if n % 2 else "out")
            (root / leaf / f"{n:03d}.txt").write_text(text)
    return root


def config_of(folder, *more):
    own = ["dataset.name=tree", f"dataset.path={folder}", "generator=lora", "finetune.min_images=2"]
    return load_config(None, [*own, *more])


def test_a_plan_counts_captions_and_those_that_are_cut(folder):
    config = config_of(folder, "dataset.captions=txt")
    plan = plan_run(config)
    _, groups, listing = list_dataset(config.dataset, config.seed)
    train = [row for row in listing.to_pylist() if row["split"] == "train"]
    own = sum(bool(row["caption"]) for row in train)
    assert f"{own} of {len(train)} training images have one, {len(train) - own} their" in (
        plan.captions
    )
    assert "(fewest: coat/grass, 2 different)" in plan.captions
    assert "2 of 8 different prompts are longer than the 24 tokens" in plan.captions
    assert "e.g. 'a photo of a sks " in plan.captions and "captions     " in str(plan)
    shape = sizes.base_shape(config, [])
    hub = config.model_copy(update={"base": config.base.model_copy(update={"name": "own/er"})})
    assert "is known of a base.name that is a folder" in told_of_captions(
        hub, groups, listing, shape
    )


def test_a_plan_without_captions_says_nothing_of_them(folder):
    plan = plan_run(config_of(folder))
    assert plan.captions == "" and "captions  " not in str(plan)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["finetune.terms=[cbdm]", "generator=shared"], "finetune.terms: cbdm compares"),
        (["audit.method=guda", "generator=shared"], "audit.method: guda compares"),
    ],
)
def test_what_knows_a_group_by_one_prompt_is_refused(folder, more, said):
    config_of(folder, *more)
    with pytest.raises((ConfigError, ValueError), match=said) as refused:
        config_of(folder, "dataset.captions=txt", *more)
    assert "leave dataset.captions out" in str(refused.value)
