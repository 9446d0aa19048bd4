"""Workers that train one model together: each its share of every batch, gradients of the whole.

All draw the same random numbers and take their own rows of what is drawn, so that what comes out
does not depend on how many they are, but for rounding. One alone needs no process group.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from raysynth.models.device import autocast, pick_dtype


@dataclass(frozen=True)
class Crew:
    """A worker among those that train with it."""

    device: torch.device
    dtype: torch.dtype
    """Of autocast."""
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker writes what all have in common."""
        return self.rank == 0

    def alone(self) -> Crew:
        """The same worker by itself."""
        return Crew(self.device, self.dtype)

    def share(self, whole: Tensor) -> Tensor:
        """This worker's rows of what was drawn for all, [B, ...] -> [B / size, ...], on its device.

        B is a multiple of `size`: `checks.check_workers`.
        """
        return whole[self.own(len(whole))].to(self.device)

    def own(self, count: int) -> slice:
        """This worker's rows of `count`."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which models compute."""
        return autocast(self.device, self.dtype)

    def gather(self, own: Tensor) -> Tensor:
        """[b, ...] of each worker -> [b * size, ...], in order; gradients flow back to each."""
        if self.size == 1:
            return own
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(own.contiguous()))

    def mean_gradients(self, module: nn.Module) -> None:
        """Put the mean over all workers in the gradients' place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        whole = parameters_to_vector(gradients)
        dist.all_reduce(whole)
        vector_to_parameters(whole / self.size, gradients)

    def same(self, module: nn.Module) -> None:
        """Give all workers the leader's weights."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """Precision of a training; float32 in float16's place, in which gradients vanish unscaled."""
    dtype = pick_dtype(name, device)
    return torch.float32 if dtype == torch.float16 else dtype
