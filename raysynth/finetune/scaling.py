"""One dynamic loss scale per adapter, for float16's narrow range.

As Micikevicius et al. 2018 (arXiv 1710.03740, section 3.2) and torch's GradScaler, but a gradient
that overflows halves the scale and skips the step of its own adapter only: with one scale for all,
an adapter's result would depend on its neighbours. Other precisions have no scale and no skips.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradScalerKwargs
from torch import Tensor

from raysynth.adapters.rows import Rows

START = 2.0**14
LEAST = 2.0**-10
"""A scale that fell this low says that the loss itself is the trouble."""
PATIENCE = 500
"""Steps without overflow before a scale doubles."""


@dataclass
class LossScale:
    """The factors of all slots."""

    values: Tensor
    """[S] float32, powers of two."""
    calm: Tensor
    """[S] int64 steps since the last change."""
    dynamic: bool

    @classmethod
    def of(cls, precision: str, slots: int, device: torch.device) -> LossScale:
        """Dynamic for accelerate's `fp16`, one otherwise."""
        dynamic = precision == "fp16"
        values = torch.full((slots,), START if dynamic else 1.0, device=device)
        return cls(values, torch.zeros(slots, dtype=torch.int64, device=device), dynamic)

    def reset(self, slot: int) -> None:
        """A new adapter in a slot."""
        self.values[slot] = START if self.dynamic else 1.0
        self.calm[slot] = 0

    @contextmanager
    def skipping(self, finite: Tensor, rows: Rows) -> Iterator[None]:
        """Keep overflowed rows out of the optimizer's step, then adapt the scales.

        Waits for the device at every step, as GradScaler does; only where the scale is dynamic.
        """
        if not self.dynamic:
            yield
            return
        skipped = [slot for slot, fine in enumerate(finite.tolist()) if not fine]
        held = {slot: rows.parameters[slot].grad for slot in skipped}
        for slot in skipped:
            rows.parameters[slot].grad = None
        yield
        for slot, gradient in held.items():
            rows.parameters[slot].grad = gradient
        self.calm = torch.where(finite, self.calm + 1, 0)
        grow = self.calm >= PATIENCE
        factor = torch.where(finite, torch.where(grow, 2.0, 1.0), 0.5)
        self.values *= factor
        self.calm.masked_fill_(grow, 0)

    def tolerates(self, finite: Tensor) -> Tensor:
        """[S] bool, rows whose gradient is finite, or may become so at a lower scale."""
        return finite | (self.values > LEAST) if self.dynamic else finite


def accelerator_of(precision: str, cpu: bool) -> Accelerator:
    """Of this training alone: a process that trained in another precision keeps its state."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        mixed_precision=precision,  # not told of accumulation: `step` takes the mean
        cpu=cpu,
        device_placement=False,
        kwargs_handlers=[GradScalerKwargs(enabled=False)],  # LossScale has one scale per adapter
    )
