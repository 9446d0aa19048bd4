"""How a group is spoken."""

from __future__ import annotations

from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.groups.settings import PromptConfig

GROUPS = Groups(("y0", "y1"), ("a0", "a1"), ("pullover", "coat"), ("grass", "gravel"))


def test_template_token_and_words():
    prompts = PromptConfig()
    assert spoken(prompts, GROUPS, 2) == "a photo of a sks coat on grass"
    assert spoken(prompts, GROUPS, 1, token="") == "a photo of a pullover on gravel"
    own = PromptConfig(template="{label}, {attribute}")
    assert spoken(own, GROUPS, 3) == "coat, gravel"
