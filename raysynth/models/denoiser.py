"""The one place where a base model's network is called.

Fine-tuning, drawing, masks and what measures them speak to a `Denoiser`, in terms of noise, clean
image or velocity; which network it is, what it takes and what it predicts is its family's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from raysynth.models.condition import Condition
from raysynth.models.family import Base
from raysynth.models.prediction import Predicted


@dataclass(frozen=True)
class Denoiser:
    """A network of a base's family: the base's own, with adapters, fine-tuned, or compiled."""

    base: Base
    """Says the family, and with its scheduler what is predicted."""
    model: Any
    autocast: Callable[[], AbstractContextManager[Any]] | None = None
    """The context that it runs in; None: the base's own."""

    def __call__(self, x: Tensor, timestep: Tensor, condition: Condition) -> Predicted:
        """What the network says of noisy images.

        Parameters
        ----------
        x : [B, C, H, W] float32 noisy images, on the network's device.
        timestep : [B], or one for all, on the scheduler's own scale.
        condition : B rows.
        """
        dtype = self.model.dtype
        given = condition.to(x.device, dtype)
        with (self.autocast or self.base.autocast)():
            said = self.base.family.predict(self.model, x.to(dtype), timestep, given)
        return Predicted(self.base.prediction, x, timestep, said.float())
