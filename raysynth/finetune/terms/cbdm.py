"""CBDM: what is said under a prompt is pulled towards what is said under another group's.

Qin et al. 2023 (arXiv 2305.00562): tau t/T (||h - sg(h')||^2 + gamma ||sg(h) - h'||^2) with h the
prediction under the own condition, h' under another, and gamma 1/4, as in their code; another group
is drawn evenly, as they do where they fine-tune. Ours: the difference is of what the base predicts
(theirs: noise), so that tau's unit is the base's own loss; and who may be another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raysynth.finetune.term import Beginning, Passes
from raysynth.knobs import Section, knob

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.material import Material
    from raysynth.finetune.objective import Noised
    from raysynth.groups.groups import Groups

NAME = "cbdm"


class CbdmKnobs(Section):
    """How much, and towards whom."""

    tau: Annotated[float, Field(ge=0)] = knob(1.0, "Weight of the term (theirs: 1).")
    gamma: Annotated[float, Field(ge=0)] = knob(
        0.25, "Share of the part whose gradient is the other prediction's (theirs: 0.25)."
    )
    partners: Literal["any", "same_label", "same_attribute"] = knob(
        "any",
        "Who may be the other group: any that the model speaks for, the own one too (theirs); "
        "same_label: of another attribute; same_attribute: of another label.",
    )


def regulariser(own: Tensor, other: Tensor, level: Tensor, tau: float, gamma: float) -> Tensor:
    """[B] the term of predictions [B, C, h, w] at shares [B] of the noise schedule."""
    to_own = (own - other.detach()).square().flatten(1).mean(1)
    to_other = (own.detach() - other).square().flatten(1).mean(1)
    return tau * level * (to_own + gamma * to_other)


class Cbdm:
    """See `raysynth.finetune.term.Term`."""

    title = "Class-balancing regulariser"
    source = "Qin et al. 2023 (arXiv 2305.00562); their code"
    Knobs = CbdmKnobs
    against = ("overlap",)

    def passes(self, knobs: CbdmKnobs) -> Passes:
        """The other prediction, with its gradient."""
        return Passes(trained=1)

    def partners(
        self, group: int, spoken: Sequence[int], groups: Groups, knobs: CbdmKnobs
    ) -> list[int]:
        """As `knobs.partners` says."""
        if knobs.partners == "any":
            return list(spoken)
        side = groups.label if knobs.partners == "same_label" else groups.attribute
        return [g for g in spoken if g != group and side(g) == side(group)]

    def extra(self, material: Material, start: Beginning, knobs: CbdmKnobs) -> Material:
        """Another prompt for every draw."""
        from raysynth.finetune.partners import with_partners

        def among(group: int, spoken: Sequence[int]) -> list[int]:
            return self.partners(group, spoken, start.groups, knobs)

        return with_partners(material, start, NAME, among)

    def __call__(self, batch: Noised, knobs: CbdmKnobs) -> Tensor:
        """[B] the regulariser; zero without a prompt, and under the own one."""
        other = batch.denoise(batch.x, batch.timestep, batch.also[NAME])
        found = regulariser(batch.predicted.raw, other.raw, batch.level, knobs.tau, knobs.gamma)
        return found.where(batch.differs[NAME], 0.0)


PART = Cbdm()
