"""Composed guidance: the formula, which rows it asks, what it is where a word says nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.groups.prompts import each_alone
from raysynth.groups.settings import PromptConfig
from raysynth.synthesis.checks import check_guidance
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.guidance import guide_of
from raysynth.synthesis.task import Drawing, Task
from tests.synthesis.conftest import GROUPS
from tests.synthesis.test_guidance import chosen, said
from tests.synthesis.test_sources import PROMPT

EVERYWHERE = {"name": "composed", "interval": [0.0, 1.0]}


def test_either_word_goes_the_scale_times_as_far():
    guide = guide_of(chosen("composed"), 3.0)
    found = guide(
        {"empty": said(1.0), "label": said(2.0), "attribute": said(5.0)}, torch.tensor(500), 0, 4
    )
    assert found.raw.item() == 1 + 3 * (2 - 1) + 3 * (5 - 1)
    assert found.clean.item() == 1 - 0.5 * 16, "still a prediction"


def test_the_prompt_is_asked_where_words_are_not_added_up_alone():
    guide = guide_of(chosen("composed"), 3.0)
    words = ("empty", "label", "attribute")
    assert guide.rows == (*words, "prompt") and guide.alone
    assert [guide.rows_at(level) for level in (0.9, 0.3, 0.2)] == [words, words, ("prompt",)]
    assert guide.evaluations([0.9, 0.3, 0.2]) == 7
    assert guide({"prompt": said(2.0)}, torch.tensor(1), 0, 4, 0.2).raw.item() == 2.0
    everywhere = guide_of(chosen(EVERYWHERE), 0.5)
    assert everywhere.rows == everywhere.rows_at(0.01) == words
    assert not guide_of(chosen("classifier_free", "cell"), 3.0).alone


@pytest.mark.parametrize("interval", [[0.0, 1.0], [0.4, 0.9]])
def test_a_word_that_says_nothing_leaves_classifier_free_guidance(make_config, interval):
    def images(term: str, alone: dict[str, tuple[str, str]]) -> np.ndarray:
        guidance = [{"name": term, "interval": interval}]
        synthesis = {"guidance": guidance, "guidance_scale": 2.5, "steps": 4}
        config = make_config(generator="vanilla", synthesis=synthesis)
        drawing = Drawing.of(config, groups=GROUPS)
        drawing = replace(drawing, alone={**drawing.alone, **alone})
        generate = ImageGenerator(drawing, "", ())
        return generate([PROMPT] * 3, [""] * 3, [""] * 3, [1, 2, 3]).astype(int)

    free = images("classifier_free", {})
    assert np.abs(images("composed", {PROMPT: (PROMPT, "")}) - free).max() <= 1
    assert np.abs(images("composed", {PROMPT: ("", PROMPT)}) - free).max() <= 1
    assert np.abs(images("composed", {}) - free).max() > 1, "two words"


def test_actors_are_told_the_words_of_every_prompt_if_guidance_asks():
    def told(*guidance: Any) -> dict[str, tuple[str, str]]:
        config = Config.model_validate(
            {"generator": "shared", "synthesis": {"guidance": list(guidance)}}
        )
        return dict(Task.of(config, GROUPS, "", (), "").drawing.alone)

    assert told("composed") == each_alone(PromptConfig(), GROUPS)
    assert told("classifier_free") == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["generator=shared", "synthesis.guidance=[classifier_free, composed]"],
            r"composed after classifier_free, .* Fix: synthesis\.guidance=\[composed\]",
        ),
        (
            ["generator=vanilla", "prompts.template='a {label}'", "synthesis.guidance=[composed]"],
            r"the attribute's word alone; got prompts\.template='a \{label\}' without",
        ),
        (
            ["generator=lora", "synthesis.guidance=[composed]"],
            r"got generator=lora, whose models know one group each; .* Fix: generator=shared",
        ),
    ],
)
def test_what_cannot_be_composed_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        check_guidance(load_config(None, given))
    check_guidance(load_config(None, ["generator=shared", "synthesis.guidance=[composed, cell]"]))
