"""What a head is: how it is fitted, to which images, with which weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Objective = Literal["erm", "balanced", "group_dro", "dfr"]
"""Stage 2 on real training images; heads of these are swept over weight decays."""


ALONE = ("trained", "dfr_train", "dfr_validation", "self")
"""Heads without a weight decay to sweep: trained along, or tuned inside their own fit."""


@dataclass(frozen=True)
class HeadSpec:
    """A head tried on every snapshot: the one trained along, or one refitted on real images.

    `penalty` is that of `dfr_train` and `dfr_validation`. `real_share`: lambda of
    lambda * CE(real) + (1 - lambda) * CE(synthetic); below 1, `erm` and `balanced` are fitted to
    the synthetic images of the plan's first phase too.
    """

    objective: Objective | Literal["trained", "dfr_train", "dfr_validation", "self"]
    weight_decay: float = 0.0
    penalty: Literal["l1", "l2"] = "l1"
    real_share: float = 1.0

    @property
    def name(self) -> str:
        """Distinct text, e.g. `balanced-0.01`, or `balanced-0.01-real-0.5`."""
        if self.objective in ALONE:
            return self.objective
        share = "" if self.real_share == 1 else f"-real-{self.real_share:g}"
        return f"{self.objective}-{self.weight_decay:g}{share}"


TRAINED = HeadSpec("trained")
