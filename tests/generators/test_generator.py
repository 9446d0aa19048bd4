"""A generator is one file, here or in another package: it trains, lends and samples as it says."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.generators.generator import GENERATORS
from raysynth.generators.inputs import synthesis_inputs, training_inputs
from raysynth.generators.lending import settled
from raysynth.generators.recipe import BUDGETS, recipe_of

PART = """
    from raysynth.generators.generator import Generator, Models, Sampling


    def dark(name, prompts, finetune):
        if "night" in prompts.template:
            raise ValueError(f"prompts.template: generator={name} sees no night. Fix: by day")


    PART = Generator(
        "an adapter per class, its images edited as a whole",
        "a paper",
        Models("lora", "class", token=False),
        Sampling(edits=True, strength=0.6),
        dark,
    )
"""


@pytest.fixture
def theirs(add_part):
    add_part(GENERATORS.package, "class_edit", PART)


def test_every_part_says_what_it_is():
    assert set(GENERATORS.names) >= {"vanilla", "lora", "dreambooth", "shared", "edit"}
    for name in GENERATORS:
        part = GENERATORS[name]
        assert part.title and part.source, name


def test_a_generator_of_another_package(theirs):
    config = load_config(None, ["generator=class_edit", "finetune.steps=5"])
    recipe = recipe_of(config)
    assert (recipe.training.engine, recipe.training.scope) == ("lora", "class")
    assert recipe.training.budget.batch_size == BUDGETS["lora", True].batch_size
    assert recipe.training.budget.steps == 5
    assert (recipe.edits, recipe.masked, recipe.strength, recipe.token) == (True, False, 0.6, False)
    assert settled(recipe, np.array([90, 2, 2, 90])) == recipe, "it says its scope"
    assert "strength" in synthesis_inputs(config)["knobs"]
    assert training_inputs(config)["training"]["scope"] == "class"
    both = load_config(None, ["generator=auto", "candidates=[vanilla, class_edit]"])
    assert both.candidates == ("vanilla", "class_edit")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prompts.template=a_{label}", "generator=class_edit a class's groups apart"),
        ("prompts.template=a_{label}_on_{attribute}_by_night", "sees no night"),
    ],
)
def test_it_refuses_what_it_and_all_of_its_kind_cannot_use(theirs, override, said):
    with pytest.raises(ConfigError, match=said):
        load_config(None, ["generator=class_edit", override])


@pytest.mark.parametrize("override", ["generator=vanila", "candidates=[vanila]"])
def test_a_name_that_is_none_is_refused_with_the_nearest(override):
    with pytest.raises(ConfigError, match=r"vanilla.* Did you mean 'vanilla'\?"):
        load_config(None, [override])
