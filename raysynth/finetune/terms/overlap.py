"""Overlap: what is said under a group's prompt is kept apart from what is said under its sister's.

Yan et al. 2024 (DiffROP) enlarge the divergence of the reverse steps of two classes, with margins;
of two Gaussian steps of one variance it is the squared distance of the predictions. Their margins,
weights and negatives are not published. Ours: weight relu(margin d_ref - d) with d the distance of
the two predictions and d_ref the base's own, of as noisy training images, so that one margin serves
all noise levels; the gradient is the own prediction's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raysynth.finetune.term import Beginning, Passes
from raysynth.knobs import Rate, Section, Share, knob

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.material import Material
    from raysynth.finetune.objective import Noised
    from raysynth.groups.groups import Groups

NAME = "overlap"
BINS = 6
"""Noise levels of which each has its own d_ref."""
IMAGES = 64
"""Draws of the training that d_ref is a mean of, at every level."""


class OverlapKnobs(Section):
    """How much, from whom, and where."""

    weight: Annotated[float, Field(ge=0)] = knob(1.0, "Weight of the term.")
    margin: Rate = knob(4.0, "Distance that is asked for, as a multiple of the base's own.")
    negatives: Literal["attribute", "label"] = knob(
        "attribute",
        "Who is kept apart: the same label with another attribute, or the other way round.",
    )
    levels: tuple[Share, Share] = knob(
        (0.0, 1.0), "Lowest and highest noise level, as shares of the schedule, that it acts at."
    )


def hinge(own: Tensor, other: Tensor, wanted: Tensor, weight: float) -> Tensor:
    """[B] weight relu(wanted - d), d the mean squared distance of predictions [B, C, h, w]."""
    distance = (own - other.detach()).square().flatten(1).mean(1)
    return weight * (wanted - distance).relu()


class Overlap:
    """See `raysynth.finetune.term.Term`."""

    title = "Kept apart"
    source = "after Yan et al. 2024 (DiffROP); margin, weight and negatives are ours"
    Knobs = OverlapKnobs
    against = ("cbdm",)

    def passes(self, knobs: OverlapKnobs) -> Passes:
        """The other prediction, without gradient; both, where d_ref is measured."""
        return Passes(looked=1, first=2 * BINS * IMAGES)

    def partners(
        self, group: int, spoken: Sequence[int], groups: Groups, knobs: OverlapKnobs
    ) -> list[int]:
        """As `knobs.negatives` says."""
        side = groups.label if knobs.negatives == "attribute" else groups.attribute
        return [g for g in spoken if g != group and side(g) == side(group)]

    def extra(self, material: Material, start: Beginning, knobs: OverlapKnobs) -> Material:
        """Another prompt for every draw, and the distance that is asked for at its level."""
        from raysynth.finetune.partners import distances, with_partners

        def among(group: int, spoken: Sequence[int]) -> list[int]:
            return self.partners(group, spoken, start.groups, knobs)

        found = with_partners(material, start, NAME, among)
        levels = [(bin_ + 0.5) / BINS for bin_ in range(BINS)]
        reference = distances(found, start, NAME, levels, IMAGES)
        prediction = start.base.prediction
        share = prediction.draw(material.uniform) / prediction.timesteps
        wanted = knobs.margin * reference[(share * BINS).long().clamp(0, BINS - 1)]
        noted = {"levels": levels, "distance_of_base": reference.tolist()}
        return replace(
            found,
            values={**found.values, NAME: wanted},
            noted={**found.noted, NAME: noted},
        )

    def __call__(self, batch: Noised, knobs: OverlapKnobs) -> Tensor:
        """[B] the hinge; zero without a prompt, and at other levels."""
        import torch

        with torch.no_grad():
            other = batch.denoise(batch.x, batch.timestep, batch.also[NAME]).raw
        found = hinge(batch.predicted.raw, other, batch.values[NAME], knobs.weight)
        low, high = knobs.levels
        acts = batch.differs[NAME] & (batch.level >= low) & (batch.level <= high)
        return found.where(acts, 0.0)


PART = Overlap()
