"""Guidance terms: the formula, what a step evaluates, terms in order, one of another package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.models.prediction import Predicted, Prediction
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.guidance import GUIDANCE, guide_of
from raysynth.synthesis.settings import MASK_DRAWS
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import COUNTS, GROUPS, planned, records
from tests.synthesis.test_sources import PROMPT


def said(value: float) -> Predicted:
    flow, ones = Prediction("flow_prediction", 1000, None), torch.ones(1, 1, 1, 1)
    return Predicted(flow, ones, torch.tensor(500), value * ones)


def chosen(*terms: Any):
    return Config.model_validate({"synthesis": {"guidance": list(terms)}}).synthesis.guidance


def test_classifier_free_guidance_goes_past_the_prompt():
    guide = guide_of(chosen("classifier_free"), 3.0)
    assert guide.rows == ("negative", "prompt") and guide.copies == 2
    found = guide({"negative": said(1.0), "prompt": said(2.0)}, torch.tensor(500), 0, 4)
    assert found.raw.item() == 1 + 3 * (2 - 1)
    assert found.clean.item() == 1 - 0.5 * 4, "still a prediction"


@pytest.mark.parametrize(("terms", "scale"), [(["classifier_free"], 1.0), ([], 3.0)])
def test_without_guidance_a_step_evaluates_the_prompt_alone(terms, scale):
    guide = guide_of(chosen(*terms), scale)
    assert guide.rows == ("prompt",)
    assert guide({"prompt": said(2.0)}, torch.tensor(500), 0, 4).raw.item() == 2.0


def test_evaluations_follow_from_what_the_terms_ask():
    recipe = recipe_of(Config(generator="edit"))
    assert recipe.evaluations(6, 2, MASK_DRAWS) == 2 * 6 + 8
    assert recipe_of(Config(generator="lora")).evaluations(6, 3, MASK_DRAWS) == 18


def test_terms_enter_the_digest_where_they_are_not_the_usual_one():
    usual = synthesis_inputs(Config())["knobs"]
    same = synthesis_inputs(Config.model_validate({"synthesis": {"guidance": ["classifier_free"]}}))
    off = synthesis_inputs(Config.model_validate({"synthesis": {"guidance": []}}))
    assert "guidance" not in usual and same["knobs"] == usual
    assert off["knobs"] == usual | {"guidance": []}


def test_every_term_says_what_it_is():
    for name in GUIDANCE:
        assert GUIDANCE[name].title and GUIDANCE[name].source


TERM = """
    from dataclasses import replace

    from raysynth.knobs import Section


    class Knobs(Section):
        share: float = 0.5
        row: str = "empty"


    class Towards:
        title, source, Knobs = "towards no words", "nobody", Knobs

        def conditions(self, scale, knobs):
            return (knobs.row,)

        def __call__(self, predicted, at, knobs):
            prompt, empty = predicted["prompt"], predicted["empty"]
            return replace(prompt, raw=prompt.raw.lerp(empty.raw, knobs.share))


    PART = Towards()
"""


@pytest.fixture
def towards(add_part):
    add_part("raysynth.synthesis.guidances", "towards", TERM)


def test_a_term_of_another_package_guides_images(towards, make_config):
    def images(share: float | None, prompt: str) -> np.ndarray:
        terms = ["classifier_free"]
        if share is not None:
            terms.append({"name": "towards", "share": share})
        synthesis = {"guidance": terms, "guidance_scale": 2.0}
        config = make_config(generator="vanilla", synthesis=synthesis)
        generate = ImageGenerator(Drawing.of(config), "", ())
        return generate([prompt] * 2, [""] * 2, [""] * 2, [1, 2]).astype(int)

    plain = images(None, PROMPT)
    assert np.abs(images(0.0, PROMPT) - plain).max() <= 1
    wordless = images(1.0, PROMPT)
    assert np.abs(wordless - images(1.0, "a photo of a pullover on grass")).max() <= 1
    assert np.abs(wordless - plain).max() > 1


def test_terms_ask_for_their_rows_once_each_and_the_prompt_last(towards):
    guide = guide_of(chosen("classifier_free", "towards", {"name": "towards", "share": 1.0}), 2.0)
    assert guide.rows == ("negative", "empty", "prompt")
    found = guide(
        {"negative": said(1.0), "empty": said(0.0), "prompt": said(2.0)}, torch.tensor(1), 0, 4
    )
    assert found.raw.item() == 0.0, "the last one goes all the way"


def test_a_row_that_specs_have_not_is_refused(towards):
    with pytest.raises(ConfigError, match=r"towards needs the condition 'sizes'; expected some of"):
        guide_of(chosen({"name": "towards", "row": "sizes"}), 2.0)


def test_the_negative_prompt_is_recorded_where_a_term_asks_for_it(make_config):
    for terms, expected in ((["classifier_free"], {"blurry"}), ([], {""})):
        config = make_config(
            generator="clustered_dreambooth",
            synthesis={"guidance": terms, "guidance_scale": 2.0, "lender": "attribute"},
            prompts={"negative": "blurry"},
        )
        table = planned(config, records(config), GROUPS, COUNTS)
        assert set(table["negative_prompt"].to_pylist()) == expected
