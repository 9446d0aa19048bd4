"""How a group is spoken: one template, the data set's words, the rare token."""

from __future__ import annotations

import string
from typing import Literal

from raysynth.errors import ConfigError
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig

Side = Literal["label", "attribute"]


def spoken(prompts: PromptConfig, groups: Groups, group: int, *, token: str | None = None) -> str:
    """The prompt of a group.

    `token`: the rare token to insert; None takes the configured one, "" drops it.
    """
    return _filled(prompts.template, prompts, groups, group, token)


def alone(
    prompts: PromptConfig, groups: Groups, group: int, side: Side, *, token: str | None = None
) -> str:
    """The prompt of a group that says its label, or its attribute, and nothing of the other.

    `a photo of a {token} {label} on {attribute}`: the label alone is `a photo of a {token} {label}`
    and the attribute alone `a photo of a {token} on {attribute}`. The other word goes, with the
    text between it and what is filled in before it.
    """
    kept = ""
    for number, (text, field, _, _) in enumerate(string.Formatter().parse(prompts.template)):
        said = text.replace("{", "{{").replace("}", "}}")
        if field is None or field in ("token", side):
            kept += said + ("" if field is None else f"{{{field}}}")
        elif number == 0:
            kept += said
    return _filled(kept, prompts, groups, group, token).strip(" ,;:.")


def captioned(prompts: PromptConfig, prompt: str, caption: str) -> str:
    """A group's prompt with an image's caption; as it is, of an image without one.

    The group's comes first where `prompts.captioned` is as by default: what is cut off of a prompt
    that is longer than the text encoder reads is the caption's end.
    """
    if not caption:
        return prompt
    return " ".join(prompts.captioned.format(prompt=prompt, caption=caption).split())


def both_alone(
    prompts: PromptConfig, groups: Groups, group: int, *, token: str | None = None
) -> tuple[str, str]:
    """The prompts of a group's label and of its attribute, each alone."""
    label = alone(prompts, groups, group, "label", token=token)
    return label, alone(prompts, groups, group, "attribute", token=token)


def check_attribute(prompts: PromptConfig, why: str) -> None:
    """Refuse a template that does not name the attribute; ConfigError. `why`: what it is for."""
    if "attribute" not in prompts.fields:
        raise ConfigError(
            f"prompts.template: {prompts.template!r} has no {{attribute}}, so {why}; expected it "
            f"in the template. Fix: prompts.template={PromptConfig().template!r}"
        )


def _filled(
    template: str, prompts: PromptConfig, groups: Groups, group: int, token: str | None
) -> str:
    text = template.format(
        token=prompts.token if token is None else token,
        label=groups.label_words[groups.label(group)],
        attribute=groups.attribute_words[groups.attribute(group)],
    )
    return " ".join(text.split())


def each_alone(prompts: PromptConfig, groups: Groups) -> dict[str, tuple[str, str]]:
    """Prompt of a group, with and without the rare token -> its label's alone, its attribute's."""
    return {
        spoken(prompts, groups, g, token=token): both_alone(prompts, groups, g, token=token)
        for token in (None, "")
        for g in range(groups.count)
    }
