"""How a group is spoken."""

from __future__ import annotations

import pytest

from raysynth.groups.groups import Groups
from raysynth.groups.prompts import alone, captioned, each_alone, spoken
from raysynth.groups.settings import PromptConfig

GROUPS = Groups(("y0", "y1"), ("a0", "a1"), ("pullover", "coat"), ("grass", "gravel"))


def test_template_token_and_words():
    prompts = PromptConfig()
    assert spoken(prompts, GROUPS, 2) == "a photo of a sks coat on grass"
    assert spoken(prompts, GROUPS, 1, token="") == "a photo of a pullover on gravel"
    own = PromptConfig(template="{label}, {attribute}")
    assert spoken(own, GROUPS, 3) == "coat, gravel"


@pytest.mark.parametrize(
    ("template", "token", "label", "attribute"),
    [
        (None, None, "a photo of a sks coat", "a photo of a sks on grass"),
        (None, "", "a photo of a coat", "a photo of a on grass"),
        ("{label}, {attribute}", None, "coat", "grass"),
        ("{attribute}: a {label}, old", None, "a coat, old", "grass, old"),
        ("{{1}} {label} on {attribute}", None, "{1} coat", "{1} on grass"),
    ],
)
def test_a_word_alone_takes_what_leads_to_the_other_one_away(template, token, label, attribute):
    prompts = PromptConfig() if template is None else PromptConfig(template=template)
    assert alone(prompts, GROUPS, 2, "label", token=token) == label
    assert alone(prompts, GROUPS, 2, "attribute", token=token) == attribute


def test_every_prompt_is_known_with_and_without_the_token():
    found = each_alone(PromptConfig(), GROUPS)
    assert len(found) == 2 * GROUPS.count
    assert found["a photo of a coat on gravel"] == ("a photo of a coat", "a photo of a on gravel")
    assert found["a photo of a sks coat on gravel"][0] == "a photo of a sks coat"


def test_a_caption_follows_the_groups_prompt():
    prompts = PromptConfig()
    assert captioned(prompts, "a photo", "red, {small}") == "a photo, red, {small}"
    assert captioned(prompts, "a photo", "") == "a photo"
    assert captioned(PromptConfig(captioned="{caption}. {prompt}"), "a", "b") == "b. a"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{caption}", "{prompt} is missing"),
        ("{prompt}", "{caption} is missing"),
        ("{prompt} {label} {caption}", "unknown field 'label'.*use {prompt}, {caption}"),
        ("{prompt} {caption", "prompts.captioned: .*write {{ for a brace"),
    ],
)
def test_a_template_that_says_not_both_is_refused(template, said):
    with pytest.raises(ValueError, match=said):
        PromptConfig(captioned=template)
