"""One adapter folded into the base's weights: W = W0 + s B A (Hu et al. 2021, section 4).

A batch that uses one adapter then costs what the plain base costs. The folded weights live in a
twin of the UNet that shares every other tensor with it; W0 itself is never written to, so that
nothing has to be subtracted again and mixed batches stay exact.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn

from raysynth.adapters.grouped_lora import GroupedLoRA


class FoldedUNet:
    """A twin of a UNet with stacked adapters, whose weights hold one of them at a time."""

    def __init__(self, unet: nn.Module, lora: GroupedLoRA) -> None:
        """`unet`: the one that `lora` was injected into; memory: its adapted weights once more."""
        shared = {id(tensor): tensor for tensor in chain(unet.parameters(), unet.buffers())}
        self.unet = copy.deepcopy(unet, shared)
        self.lora = lora
        self.current = -1
        self._weights: dict[str, torch.Tensor] = {}
        for name, layer in lora.layers.items():
            plain = copy.copy(layer.base)
            plain._parameters = dict(layer.base._parameters)
            plain.weight = nn.Parameter(torch.empty_like(layer.base.weight), requires_grad=False)
            self.unet.set_submodule(name, plain)
            self._weights[name] = plain.weight

    def use(self, position: int) -> nn.Module:
        """The twin with the adapter at `position` of the stacks folded in."""
        if position != self.current:
            self._fold(position)
            self.current = position
        return self.unet

    @torch.no_grad()
    def _fold(self, position: int) -> None:
        """Made in float32 and rounded once, to the precision in which the base is kept."""
        for name, layer in self.lora.layers.items():
            self._weights[name].copy_(layer.folded(position))
