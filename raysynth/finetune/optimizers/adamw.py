"""AdamW: torch's own, all adapters in one fused step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.finetune.optimizer import BETAS
from raysynth.finetune.settings import FinetuneConfig
from raysynth.knobs import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class AdamW:
    """See `raysynth.finetune.optimizer.Optimizer`."""

    title = "AdamW"
    source = "Loshchilov & Hutter 2019 (arXiv 1711.05101); torch"
    Knobs = Section
    packages: tuple[str, ...] = ()
    extra = ""
    rate = None
    falls = True
    averages = False
    bytes = 8.0
    states = ("exp_avg", "exp_avg_sq")
    carried: tuple[str, ...] = ()

    def build(
        self, rows: Sequence[nn.Parameter], settings: FinetuneConfig, knobs: Section
    ) -> Sequence[torch.optim.Optimizer]:
        """One, with a group for each row."""
        import torch

        optimizer = torch.optim.AdamW(
            [{"params": [row]} for row in rows],
            betas=BETAS,
            weight_decay=settings.weight_decay,
            fused=rows[0].device.type in ("cpu", "cuda"),
        )
        return [optimizer]

    def kept(self, row: Tensor, state: Mapping[str, Any]) -> Tensor:
        """The weights themselves."""
        return row


PART = AdamW()
