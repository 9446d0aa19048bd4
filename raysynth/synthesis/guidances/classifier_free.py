"""Classifier-free guidance: away from the negative prompt's prediction, past the prompt's own.

guided = negative + scale (prompt - negative), Ho & Salimans 2022, eq. 6 with w = scale - 1. A scale
of at most 1 is no guidance: the negative prompt is not asked. Nor is it at levels outside an
interval: guidance narrows what is drawn at high levels, and does little at low ones (Kynkäänniemi
et al. 2024, arXiv 2404.07724).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from raysynth.synthesis.guidance import NEGATIVE, PROMPT, Level, Within

if TYPE_CHECKING:
    from raysynth.models.prediction import Predicted


class ClassifierFree:
    """See `raysynth.synthesis.guidance.Guidance`."""

    title = "Classifier-free guidance"
    source = "Ho & Salimans 2022 (arXiv 2207.12598)"
    Knobs = Within
    """The scale is `synthesis.guidance_scale`, which the generators have defaults of."""

    def conditions(self, scale: float, knobs: Within) -> tuple[str, ...]:
        """The negative prompt, where there is something to guide."""
        return (NEGATIVE,) if scale > 1 else ()

    def __call__(self, predicted: Mapping[str, Predicted], at: Level, knobs: Within) -> Predicted:
        """The prompt's prediction, driven away from the negative one."""
        prompt = predicted[PROMPT]
        if at.scale <= 1:
            return prompt
        negative = predicted[NEGATIVE].raw
        return replace(prompt, raw=negative + at.scale * (prompt.raw - negative))


PART = ClassifierFree()
