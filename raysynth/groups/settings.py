"""The knobs of `prompts`: how a group is spoken."""

from __future__ import annotations

import string

from pydantic import model_validator

from raysynth.knobs import Section, knob

SPOKEN = ("token", "label", "attribute")
"""What a prompt's template may speak of."""
JOINED = ("prompt", "caption")
"""What a captioned prompt's template speaks of."""


class PromptConfig(Section):
    """How a group is spoken."""

    template: str = knob(
        "a photo of a {token} {label} on {attribute}",
        "Prompt of an image; {label} is required, {token} and {attribute} as needed.",
    )
    token: str = knob("sks", "DreamBooth's rare token, bound to the real images.")
    negative: str = knob("", "Negative prompt of every image.")
    captioned: str = knob(
        "{prompt}, {caption}",
        "Prompt of an image that has a caption (dataset.captions): {prompt}, its group's by "
        "`template`, and {caption}, both of them.",
        neutral="{prompt}, {caption}",
    )

    @model_validator(mode="after")
    def _check(self) -> PromptConfig:
        if "label" not in self.fields:
            raise ValueError("prompts.template: {label} is missing, a prompt must name the label")
        if gone := [name for name in JOINED if name not in fields_of(self, "captioned", JOINED)]:
            raise ValueError(
                f"prompts.captioned: {{{gone[0]}}} is missing; a prompt must say both its group "
                "and its caption, e.g. {prompt}, {caption}"
            )
        return self

    @property
    def fields(self) -> frozenset[str]:
        """What the template speaks of; ValueError for more than a plain {label}."""
        return fields_of(self, "template", SPOKEN)


def fields_of(prompts: PromptConfig, key: str, known: tuple[str, ...]) -> frozenset[str]:
    """What a template speaks of; ValueError for more than a plain {name} of the known ones."""
    try:
        parts = list(string.Formatter().parse(getattr(prompts, key)))
    except ValueError as error:
        raise ValueError(f"prompts.{key}: {error}; write {{{{ for a brace") from None
    for _, field, form, conversion in parts:
        if field is not None and (field not in known or form or conversion):
            raise ValueError(
                f"prompts.{key}: unknown field {field!r}, or more than its name between the "
                f"braces; use {', '.join(f'{{{name}}}' for name in known)}"
            )
    return frozenset(field for _, field, _, _ in parts if field is not None)
