"""The model card: names stay names in its Markdown, and it says what validation prefers."""

from __future__ import annotations

import numpy as np

from raysynth.classify.card import model_card, plain, public_name
from raysynth.config.config import Config
from raysynth.groups.groups import Groups
from raysynth.groups.metrics import GroupMetrics

PLAN = {"phases": [{"ratio": 0.5, "steps": 10}], "heads": [{"real_share": 1.0}]}
GROUPS = Groups(("a|b", "<img src=x>"), ("[x](http://y)", "c\n# d"), ("a", "b"), ("c", "d"))


def card(preference: str = "", **base: str) -> str:
    metrics = GroupMetrics((0.9, 0.8, 0.7, 0.1), 0.1, 0.625, 0.5).to_dict(GROUPS)
    counts, config = np.array([4, 3, 2, 1]), Config.model_validate({"base": base})
    return model_card(config, GROUPS, counts, PLAN, metrics, [metrics], False, preference)


def test_names_are_no_cells_links_html_or_lines():
    text = card()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[-3].isdigit()]
    groups = [row for row in rows if "/" in row]
    assert [row.replace("\\|", "").count("|") for row in groups] == [4] * 4
    assert groups[3] == "| \\<img src=x\\>/c \\# d | 1 | 0.100 |"
    assert "](" not in text and "<img" not in text.replace("\\<img", "")
    assert not any(line.startswith("# d") for line in text.splitlines())
    assert plain("shirt / dark-blue 3.5") == "shirt / dark-blue 3.5"


def test_a_models_folder_is_not_published():
    assert public_name("stabilityai/stable-diffusion-2") == "stabilityai/stable-diffusion-2"
    assert public_name("/home/eve/models/sd `15") == "sd '15"
    assert "/home/eve" not in card(name="/home/eve/models/sd15") and "`sd15`" in card(
        name="/home/eve/models/sd15"
    )


def test_what_validation_prefers_is_on_the_card():
    assert "Validation prefers" not in card()
    assert "\nValidation prefers erm: 1 % against 2 %.\n" in card(
        "Validation prefers erm: 1 % against 2 %."
    )
