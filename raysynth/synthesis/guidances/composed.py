"""Composed guidance: what the label's word and the attribute's say, each by itself, is added up.

guided = h() + scale (h(y) - h()) + scale (h(a) - h()), with h() under no words: the conjunction of
Liu et al. 2022 (arXiv 2206.01714), eq. 11, one scale for both, as CoInD draws cells that it was not
trained on (Gaudi et al. 2025, arXiv 2503.01145; their code). The prompt that says both is not
asked. Ours: at levels outside an interval the prompt's own prediction is taken, as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from raysynth.knobs import Share, knob
from raysynth.synthesis.guidance import ATTRIBUTE, EMPTY, LABEL, Level, Within

if TYPE_CHECKING:
    from raysynth.models.prediction import Predicted


class ComposedKnobs(Within):
    """Where words are added up; the scale is `synthesis.guidance_scale`."""

    interval: tuple[Share, Share] = knob(
        (0.3, 1.0),
        "Lowest and highest noise level, as shares of the noise schedule, at which words are added "
        "up; at others the prompt of both is asked alone.",
    )


class Composed:
    """See `raysynth.synthesis.guidance.Instead`."""

    title = "Composed guidance"
    source = "Liu et al. 2022 (arXiv 2206.01714); Gaudi et al. 2025 (arXiv 2503.01145)"
    Knobs = ComposedKnobs
    without_prompt = True

    def conditions(self, scale: float, knobs: ComposedKnobs) -> tuple[str, ...]:
        """No words, and either word alone."""
        return (EMPTY, LABEL, ATTRIBUTE)

    def __call__(
        self, predicted: Mapping[str, Predicted], at: Level, knobs: ComposedKnobs
    ) -> Predicted:
        """From the prediction without words, the scale times as far as either word goes."""
        empty = predicted[EMPTY]
        words = predicted[LABEL].raw + predicted[ATTRIBUTE].raw - 2 * empty.raw
        return replace(empty, raw=empty.raw + at.scale * words)


PART = Composed()
