"""A denoising network and the encoders of its prompts as one module, where all are adapted.

It is given tokens instead of text states, a row of them per image: so whatever routes, folds or
packs a network's adapters by batch row does the same to the encoders'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raysynth.models.condition import Condition


class WithText(nn.Module):
    """A network and its text encoders, named as in the model's folder."""

    def __init__(self, family: Any, parts: Mapping[str, Any]) -> None:
        """`family`: says how they work together; `parts`: as loaded; nothing is copied."""
        super().__init__()
        self._family = family
        for part in (*family.encoders, family.network):
            self.add_module(part, parts[part])

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network is kept."""
        kept: torch.dtype = getattr(self, self._family.network).dtype
        return kept

    def forward(self, x: Tensor, timestep: Tensor, tokens: Mapping[str, Tensor]) -> Tensor:
        """[B, C, H, W] what the network gives under the prompts of tokens."""
        encoders = {part: getattr(self, part) for part in self._family.encoders}
        told = Condition(self._family.states(encoders, tokens)).to(x.device, x.dtype)
        said: Tensor = self._family.asked(getattr(self, self._family.network), x, timestep, told)
        return said
