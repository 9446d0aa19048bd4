"""Guidance terms: the formula, what a step evaluates, terms in order, one of another package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from raysynth.config.config import Config
from raysynth.errors import ConfigError
from raysynth.generators.inputs import synthesis_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.models.prediction import Predicted, Prediction
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.guidance import GUIDANCE, guide_of
from raysynth.synthesis.settings import MASK_DRAWS
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import CLUSTERS, COUNTS, GROUPS, planned, records
from tests.synthesis.test_sources import PROMPT

NAMES = tuple(f"{group}-{cluster}" for group, cluster in CLUSTERS)


def said(value: float) -> Predicted:
    flow, ones = Prediction("flow_prediction", 1000, None), torch.ones(1, 1, 1, 1)
    return Predicted(flow, ones, torch.tensor(500), value * ones)


def chosen(*terms: Any):
    return Config.model_validate({"synthesis": {"guidance": list(terms)}}).synthesis.guidance


def test_classifier_free_guidance_goes_past_the_prompt():
    guide = guide_of(chosen("classifier_free"), 3.0)
    assert guide.rows == ("negative", "prompt")
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
    guide = guide_of(chosen("classifier_free"), 2.0)
    assert recipe.evaluations(guide.evaluations([1.0] * 6), MASK_DRAWS) == 2 * 6 + 8
    assert recipe_of(Config(generator="lora")).evaluations(18, MASK_DRAWS) == 18


def test_outside_its_interval_a_term_is_neither_evaluated_nor_applied():
    guide = guide_of(chosen({"name": "classifier_free", "interval": [0.3, 0.8]}), 3.0)
    assert guide.rows == ("negative", "prompt") and not guide.everywhere
    levels = [0.999, 0.8, 0.5, 0.3, 0.29]
    sides = [("prompt",), guide.rows, guide.rows, guide.rows, ("prompt",)]
    assert [guide.rows_at(level) for level in levels] == sides
    assert guide.evaluations(levels) == 8
    step = (torch.tensor(1), 0, 4)
    assert guide({"prompt": said(2.0)}, *step, 0.9).raw.item() == 2.0
    assert guide({"negative": said(1.0), "prompt": said(2.0)}, *step, 0.5).raw.item() == 4.0
    with pytest.raises(ValidationError, match=r"lower level first. Fix: interval=\[0.2, 0.8\]"):
        guide_of(chosen({"name": "classifier_free", "interval": [0.8, 0.2]}), 2.0)


@pytest.fixture
def drawn(make_config, lora_folder):
    """Pixels of mixed and of folded adapters under an interval; and the network's batches."""

    def draw(interval: list[float] | None, scale: float = 3.0) -> tuple[np.ndarray, list[int]]:
        term: Any = "classifier_free"
        if interval is not None:
            term = {"name": term, "interval": interval}
        synthesis = {"guidance": [term], "guidance_scale": scale, "steps": 4}
        config = make_config(synthesis=synthesis)
        generate = ImageGenerator(Drawing.of(config), lora_folder, NAMES)
        asked: list[int] = []
        for network in (generate.bank.unet, generate.bank.folded.unet):
            network.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
        adapters = [NAMES[0]] * 4 + [NAMES[1]] * 4 + [NAMES[2]] * 8
        count = len(adapters)
        return generate([PROMPT] * count, ["grass"] * count, adapters, range(count)), asked

    return draw


def test_guidance_everywhere_and_nowhere_are_what_they_were(drawn):
    usual, asked = drawn(None)
    same, also = drawn([0.0, 1.0])
    assert np.array_equal(same, usual) and also == asked == [16] * 8
    off, asked = drawn(None, scale=1.0)
    never, also = drawn([0.0, 0.01])
    assert np.array_equal(never, off) and also == asked == [8] * 8
    assert np.abs(usual.astype(int) - off).max() > 8


def test_within_an_interval_every_row_keeps_its_adapter(drawn):
    """Levels .999, .75, .5, .25; eight rows of mixed adapters, eight of one that is folded."""
    some, asked = drawn([0.4, 0.8])
    assert asked == [8, 16, 16, 8] * 2
    ends = [drawn(None)[0], drawn(None, scale=1.0)[0]]
    assert all(np.abs(some.astype(int) - end).max() > 8 for end in ends)
    first, _ = drawn([0.9, 1.0])
    assert np.abs(some.astype(int) - first).max() > 8


def test_mixed_rows_under_an_interval_equal_adapter_by_adapter(make_config, lora_folder):
    term = {"name": "classifier_free", "interval": [0.4, 0.8]}
    synthesis = {"guidance": [term], "guidance_scale": 3.0, "steps": 4}
    generate = ImageGenerator(Drawing.of(make_config(synthesis=synthesis)), lora_folder, NAMES)
    adapters = [NAMES[0]] * 2 + [NAMES[1]] * 2

    def images(rows: list[int]) -> np.ndarray:
        names = [adapters[row] for row in rows]
        return generate([PROMPT] * len(rows), ["grass"] * len(rows), names, rows).astype(int)

    together = images([0, 1, 2, 3])
    assert np.abs(together[:2] - images([0, 1])).max() <= 1
    assert np.abs(together[2:] - images([2, 3])).max() <= 1


def test_terms_enter_the_digest_where_they_are_not_the_usual_one():
    def told(**synthesis: Any) -> dict[str, Any]:
        return synthesis_inputs(Config.model_validate({"synthesis": synthesis}))["knobs"]

    earlier = told(guidance=["classifier_free"])
    assert "guidance" not in earlier, "as the digests of earlier versions"
    assert told(guidance=[]) == earlier | {"guidance": []}
    usual = {"name": "classifier_free", "interval": [0.3, 1.0]}
    assert told() == told(guidance=[usual]) == earlier | {"guidance": [usual]}


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
