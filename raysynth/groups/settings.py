"""The knobs of `prompts`: how a group is spoken."""

from __future__ import annotations

import string

from pydantic import model_validator

from raysynth.knobs import Section, knob

SPOKEN = ("token", "label", "attribute")
"""What a prompt's template may speak of."""


class PromptConfig(Section):
    """How a group is spoken."""

    template: str = knob(
        "a photo of a {token} {label} on {attribute}",
        "Prompt of an image; {label} is required, {token} and {attribute} as needed.",
    )
    token: str = knob("sks", "DreamBooth's rare token, bound to the real images.")
    negative: str = knob("", "Negative prompt of every image.")

    @model_validator(mode="after")
    def _check(self) -> PromptConfig:
        if "label" not in self.fields:
            raise ValueError("prompts.template: {label} is missing, a prompt must name the label")
        return self

    @property
    def fields(self) -> frozenset[str]:
        """What the template speaks of; ValueError for more than a plain {label}."""
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise ValueError(f"prompts.template: {error}; write {{{{ for a brace") from None
        for _, field, form, conversion in parts:
            if field is not None and (field not in SPOKEN or form or conversion):
                raise ValueError(
                    f"prompts.template: unknown field {field!r}, or more than its name between the "
                    "braces; use {token}, {label}, {attribute}"
                )
        return frozenset(field for _, field, _, _ in parts if field is not None)
