"""AdamW with moments of eight bits: bitsandbytes' block-wise quantised states.

A quarter of the memory of AdamW's moments, which is half of what an adapter takes beside its
weights and gradients. Rows of fewer than 4,096 weights keep 32 bits, as the library has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysynth.errors import ConfigError, first_line
from raysynth.finetune.optimizer import BETAS
from raysynth.finetune.settings import FinetuneConfig
from raysynth.knobs import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

QUANTISED = 4096
"""Weights from which on the library quantises."""


class AdamW8bit:
    """See `raysynth.finetune.optimizer.Optimizer`."""

    title = "AdamW, 8 bits"
    source = "Dettmers et al. 2022 (arXiv 2110.02861); bitsandbytes"
    Knobs = Section
    packages = ("bitsandbytes",)
    extra = "adamw-8bit"
    rate = None
    falls = True
    averages = False
    bytes = 2.1
    states = ("state1", "state2")
    carried: tuple[str, ...] = ()

    def build(
        self, rows: Sequence[nn.Parameter], settings: FinetuneConfig, knobs: Section
    ) -> Sequence[torch.optim.Optimizer]:
        """One, with a group for each row; ConfigError where the device has no such step."""
        import torch
        from bitsandbytes.optim import AdamW8bit as Library

        probe = torch.nn.Parameter(torch.zeros(QUANTISED, device=rows[0].device))
        probe.grad = torch.ones_like(probe)
        try:
            Library([probe]).step()
        except Exception as error:  # whatever a device lacks: the library names no kind
            raise ConfigError(
                f"finetune.optimizer=adamw_8bit: bitsandbytes has no such step on "
                f"{rows[0].device} ({first_line(error)}). Fix: finetune.optimizer=adamw"
            ) from None
        optimizer: torch.optim.Optimizer = Library(
            [{"params": [row]} for row in rows], betas=BETAS, weight_decay=settings.weight_decay
        )
        return [optimizer]

    def kept(self, row: Tensor, state: Mapping[str, Any]) -> Tensor:
        """The weights themselves."""
        return row


PART = AdamW8bit()
