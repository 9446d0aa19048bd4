"""How a group is spoken: one template, the data set's words, the rare token."""

from __future__ import annotations

from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig


def spoken(prompts: PromptConfig, groups: Groups, group: int, *, token: str | None = None) -> str:
    """The prompt of a group.

    `token`: the rare token to insert; None takes the configured one, "" drops it.
    """
    text = prompts.template.format(
        token=prompts.token if token is None else token,
        label=groups.label_words[groups.label(group)],
        attribute=groups.attribute_words[groups.attribute(group)],
    )
    return " ".join(text.split())
