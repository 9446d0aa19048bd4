"""Recipes: what each generator trains, what explicit values change, what digests depend on."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import create_model

from raysynth.config.files import load_config
from raysynth.generators.inputs import synthesis_inputs, training_inputs
from raysynth.generators.lending import settled
from raysynth.generators.recipe import BUDGETS, recipe_of
from raysynth.knobs import knob


@pytest.mark.parametrize(
    ("overrides", "engine", "scope"),
    [
        (["generator=lora"], "lora", "group"),
        (["generator=dreambooth"], "full", "group"),
        (["generator=clustered_dreambooth"], "lora", "group_cluster"),
        (["finetune.engine=full"], "full", "group_cluster"),
        (["generator=shared"], "full", "auto"),
        (["generator=shared", "finetune.per=class", "finetune.engine=lora"], "lora", "class"),
        (["generator=edit"], "full", "auto"),
    ],
)
def test_what_a_generator_trains(overrides, engine, scope):
    recipe = recipe_of(load_config(None, overrides))
    assert (recipe.training.engine, recipe.training.scope) == (engine, scope)
    assert recipe.training.budget.steps == BUDGETS[engine, recipe.training.shared].steps
    assert recipe.edits == (recipe.name == "edit")


@pytest.mark.parametrize(
    ("per", "counts", "scope"),
    [
        ("auto", [1980, 20, 20, 1980], "all"),
        ("auto", [1998, 2, 2, 1998], "attribute"),
        ("auto", [1998, 0, 8, 1998], "attribute"),
        ("all", [1998, 2, 2, 1998], "all"),
        ("class", [1998, 2, 2, 1998], "class"),
    ],
)
def test_a_group_too_small_to_be_trained_on_makes_a_model_per_attribute(per, counts, scope):
    config = load_config(None, ["generator=shared", f"finetune.per={per}"])
    assert settled(recipe_of(config), np.array(counts)).training.scope == scope


@pytest.mark.parametrize(
    ("counts", "scope"), [([1980, 20, 20, 1980], "all"), ([1998, 2, 2, 1998], "class")]
)
def test_or_a_model_per_class_where_the_papers_rule_is_asked_for(counts, scope):
    config = load_config(None, ["generator=edit", "synthesis.lender=label"])
    assert settled(recipe_of(config), np.array(counts)).training.scope == scope
    own = load_config(None, ["generator=edit"])
    assert training_inputs(config) != training_inputs(own)


def test_explicit_values_win():
    overrides = ["generator=dreambooth", "finetune.steps=7", "finetune.ema=0.0"]
    recipe = recipe_of(load_config(None, [*overrides, "synthesis.guidance_scale=1"]))
    budget = recipe.training.budget
    assert (budget.steps, budget.ema, recipe.guidance_scale) == (7, 0.0, 1.0)
    assert budget.learning_rate == BUDGETS["full", False].learning_rate


def test_vanilla_trains_nothing_whatever_finetune_says():
    recipe = recipe_of(load_config(None, ["generator=vanilla", "finetune.engine=full"]))
    assert recipe.training is None and not recipe.token


def digests(*overrides):
    config = load_config(None, overrides)
    return training_inputs(config), synthesis_inputs(config)


def test_stages_depend_on_what_they_use_and_on_nothing_else():
    shared, edit = digests("generator=shared"), digests("generator=edit")
    assert shared[0] == edit[0] and shared[1] != edit[1], "the same models, other images"
    assert digests("synthesis.strength=0.5") == digests()
    assert digests("generator=edit", "synthesis.strength=0.5")[1] != edit[1]
    assert digests("generator=shared", "finetune.rank=3") == shared
    assert digests("finetune.rank=3")[0] != digests()[0]
    assert digests("finetune.oversample=0.5") == digests()
    assert digests("finetune.steps=120") == digests(), "what the default says anyway"
    assert digests("synthesis.actors=7", "finetune.checkpoint_steps=3") == digests()
    assert digests("prompts.negative=blurry")[0] == digests()[0]
    plain = digests("generator=vanilla")
    assert digests("generator=vanilla", "prompts.token=xyz", "finetune.steps=3")[0] == plain[0]


def with_knob(name, **said):
    """Digests' inputs of a configuration whose section has a knob that no code knows."""

    def of(value, *overrides):
        config = load_config(None, overrides)
        section = getattr(config, name)
        kind = create_model("More", __base__=type(section), another=(int, knob(0, "New.", **said)))
        more = kind.model_construct(section.model_fields_set, **dict(section), another=value)
        config = config.model_copy(update={name: more})
        return training_inputs(config), synthesis_inputs(config)

    return of


@pytest.mark.parametrize("generator", ["lora", "shared", "edit"])
def test_a_knob_that_nobody_thought_of_is_an_input(generator):
    generator = f"generator={generator}"
    trained, made = with_knob("finetune"), with_knob("synthesis")
    assert trained(0, generator)[0] != trained(1, generator)[0]
    assert made(0, generator)[1] != made(1, generator)[1]
    assert made(0, generator)[0] == made(1, generator)[0]
    spoken = with_knob("prompts")
    assert all(a != b for a, b in zip(spoken(0, generator), spoken(1, generator), strict=True))
    assert trained(0, "generator=vanilla") == trained(1, "generator=vanilla"), "nothing is trained"


@pytest.mark.parametrize("name", ["finetune", "synthesis"])
def test_but_for_width_and_the_value_at_which_it_does_nothing(name):
    assert with_knob(name, width=True)(1) == digests()
    later = with_knob(name, neutral=1)
    assert later(1) == digests() != later(2)


def test_prompt_dropout_is_an_input_where_the_data_decide_the_scope_too():
    own = digests("generator=shared")[0]
    assert digests("generator=shared", "finetune.prompt_dropout=0.1")[0] != own
    per_attribute = digests("generator=shared", "finetune.per=attribute")[0]
    asked = "finetune.prompt_dropout=0"
    assert digests("generator=shared", "finetune.per=attribute", asked)[0] == per_attribute
    assert digests("generator=lora", "finetune.prompt_dropout=0.1") == digests("generator=lora")


@pytest.mark.parametrize(
    ("generator", "lends"),
    [
        ("clustered_dreambooth", True),
        ("lora", True),
        ("vanilla", False),
        ("shared", True),
        ("shared finetune.per=all", False),
    ],
)
def test_the_lender_counts_where_a_group_may_be_lent_a_model(generator, lends):
    overrides = f"generator={generator}".split()
    by_label = digests(*overrides, "synthesis.lender=label")
    assert (digests(*overrides) != by_label) == lends
    assert "lender" not in by_label[1]["knobs"]  # what earlier versions made stays valid
