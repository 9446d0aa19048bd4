"""CoInD: what is said under label and attribute is what either of them alone adds up to.

Gaudi et al. 2025 (arXiv 2503.01145; as a source of training images, 2503.04687): where label y and
attribute a are independent given the image's other causes, the score under both is
h(y) + h(a) - h(), and the Fisher divergence of the joint from that is
|| h(y, a) - h(y) - h(a) + h() ||^2, a mean over images of the training noised at random, added with
a weight (released: 1). Their model learns each word alone by dropping conditions one by one (.2
each, so .16 of the images have the label alone, .16 the attribute alone). Ours: the difference is
of what the base predicts (theirs: noise), so that the weight's unit is the base's own loss; of the
four predictions one is that which the image is trained on (theirs: four more); and, if asked, cells
without images.
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

NAME = "coind"


class CoindKnobs(Section):
    """How much, how often a word stands alone, and of which cells."""

    weight: Annotated[float, Field(ge=0)] = knob(1.0, "Weight of the term (theirs: 1).")
    alone: Annotated[float, Field(ge=0, le=0.5)] = knob(
        0.16,
        "Share of the images with a prompt that are trained under their label alone, and as many "
        "under their attribute alone (theirs: 0.16 of all).",
    )
    cells: Literal["own", "any"] = knob(
        "own",
        "Cells of label and attribute that add up: those of the images (theirs), or also those of "
        "an image's one word with any other word, trained on or not.",
    )


def gap(own: Tensor, across: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """[B] mean squared difference of two sums of predictions [B, C, h, w] that should be equal.

    Of a cell `own` and `across` are both words and none, or the one word and the other; `one` and
    `two` the other two.
    """
    return (own + across - one - two).square().flatten(1).mean(1)


class Coind:
    """See `raysynth.finetune.term.Term`."""

    title = "Conditional independence"
    source = (
        "Gaudi et al. 2025 (arXiv 2503.01145, 2503.04687); their code; cells without images: ours"
    )
    Knobs = CoindKnobs
    against: tuple[str, ...] = ()

    def passes(self, knobs: CoindKnobs) -> Passes:
        """The cell's other three predictions, with their gradients."""
        return Passes(trained=3 if knobs.weight else 0)

    def partners(
        self, group: int, spoken: Sequence[int], groups: Groups, knobs: CoindKnobs
    ) -> list[int]:
        """Those with one of its words, if there are others of either."""
        akin = [
            [g for g in spoken if g != group and of(g) == of(group)]
            for of in (groups.label, groups.attribute)
        ]
        return [*akin[0], *akin[1]] if all(akin) else []

    def extra(self, material: Material, start: Beginning, knobs: CoindKnobs) -> Material:
        """One-sided prompts for some draws, and the other three of every draw's cell."""
        from raysynth.finetune.alone import with_alone

        return with_alone(material, start, NAME, knobs.alone, knobs.cells == "any")

    def __call__(self, batch: Noised, knobs: CoindKnobs) -> Tensor:
        """[B] the weighted gap; zero without a prompt."""
        from raysynth.finetune.alone import ACROSS, ONE, TWO

        own = batch.predicted.raw
        if not knobs.weight:
            return own.new_zeros(len(own))
        across, one, two = (
            batch.denoise(batch.x, batch.timestep, batch.also[f"{NAME}/{key}"]).raw
            for key in (ACROSS, ONE, TWO)
        )
        found = knobs.weight * gap(own, across, one, two)
        return found.where(batch.differs[f"{NAME}/{ACROSS}"], 0.0)


PART = Coind()
