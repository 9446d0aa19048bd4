"""What a head is: how it is fitted (its objective), to which images, with which weight decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from raysynth.heads.seen import Fitted, Seen
from raysynth.registry import Registry


@dataclass(frozen=True)
class HeadSpec:
    """A head tried on every snapshot: the one trained along, or one refitted on real images.

    `objective`: a name of `HEAD_OBJECTIVES`. `penalty` is that of `dfr_train` and `dfr_validation`.
    `real_share`: lambda of lambda * CE(real) + (1 - lambda) * CE(synthetic); below 1, objectives
    that are `mixed` are fitted to the synthetic images of the plan's first phase too.
    """

    objective: str
    weight_decay: float = 0.0
    penalty: Literal["l1", "l2"] = "l1"
    real_share: float = 1.0

    @property
    def name(self) -> str:
        """Distinct text, e.g. `balanced-0.01`, or `balanced-0.01-real-0.5`."""
        if not HEAD_OBJECTIVES[self.objective].swept:
            return self.objective
        share = "" if self.real_share == 1 else f"-real-{self.real_share:g}"
        return f"{self.objective}-{self.weight_decay:g}{share}"


Fit = Callable[[Sequence[HeadSpec], Seen], dict[str, Fitted]]
"""(specs of one objective, a snapshot) -> their heads by `HeadSpec.name`, fitted together."""


@dataclass(frozen=True)
class HeadObjective:
    """How heads are fitted to a snapshot of the encoder; the `PART` of a file in `objectives/`.

    `swept`: it has a weight decay, of which many are tried; else it is trained along, or tuned
    inside its own fit. `mixed`: it may be fitted to synthetic images too. `uses_validation`: it is
    fitted to validation images. `schedules`: those of `classifier.schedule` with which
    `classifier.head_objective` may name it; none: it is a reference's alone. Where that schedule
    trains all weights on real images, these are drawn by `sampling`, and with `robust` under
    Group-DRO's loss.
    """

    title: str
    source: str
    fit: Fit
    swept: bool = True
    mixed: bool = False
    uses_validation: bool = False
    schedules: tuple[str, ...] = ()
    sampling: Literal["uniform", "balanced"] = "balanced"
    robust: bool = False


HEAD_OBJECTIVES: Registry[HeadObjective] = Registry("raysynth.heads.objectives", "head objective")
TRAINED = HeadSpec("trained")
