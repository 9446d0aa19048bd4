"""Schedule-free AdamW: steps at a point between its iterates and their average, which is kept.

Its learning rate stays where it is after the warm-up. Built once for each adapter: the weights of
its average are one for all that it steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.finetune.optimizer import BETAS
from raysynth.finetune.settings import FinetuneConfig
from raysynth.knobs import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class ScheduleFree:
    """See `raysynth.finetune.optimizer.Optimizer`."""

    title = "Schedule-free AdamW"
    source = "Defazio et al. 2024 (arXiv 2405.15682); schedulefree"
    Knobs = Section
    packages = ("schedulefree",)
    extra = "optimizers"
    rate = None
    falls = False
    averages = True
    bytes = 8.0
    states = ("z", "exp_avg_sq")
    carried = ("k", "weight_sum", "lr_max")

    def build(
        self, rows: Sequence[nn.Parameter], settings: FinetuneConfig, knobs: Section
    ) -> Sequence[torch.optim.Optimizer]:
        """One for each row, in its training mode."""
        from schedulefree import AdamWScheduleFree

        found = [
            AdamWScheduleFree([row], betas=BETAS, weight_decay=settings.weight_decay)
            for row in rows
        ]
        for optimizer in found:
            optimizer.train()
        return found

    def kept(self, row: Tensor, state: Mapping[str, Any]) -> Tensor:
        """The average x, of y = (1 - beta1) z + beta1 x that the row is in training."""
        found: Tensor = row.lerp(state["z"], 1 - 1 / BETAS[0])
        return found


PART = ScheduleFree()
