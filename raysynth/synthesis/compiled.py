"""The UNet compiled for whole batches (torch.compile): fewer passes over memory, a slow start."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from raysynth.errors import ModelError, first_line


def can_compile(device: torch.device) -> bool:
    """Whether it is worth trying unasked: on a CPU with the compiler that inductor would call.

    What compiling gains on a GPU was not measured.
    """
    return device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is not None


class Compiler:
    """Compiles each UNet once, for one number of rows; other batches stay as they are.

    Every further shape would take a minute or more of compiling, and nearly all rows of a large
    run lie in full batches of one adapter.
    """

    def __init__(self, rows: int) -> None:
        """`rows`: images of the batches that are compiled for."""
        self.rows = rows
        # One process per actor compiles for itself; inductor would start one per core besides.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        self._compiled: dict[int, nn.Module] = {}

    def __call__(self, unet: nn.Module, rows: int) -> nn.Module:
        """The UNet for a batch of `rows` images."""
        if rows != self.rows:
            return unet
        if id(unet) not in self._compiled:
            self._compiled[id(unet)] = _Explained(torch.compile(unet, dynamic=False))
        return self._compiled[id(unet)]


class _Explained(nn.Module):
    """A compiled module whose compiler's errors are told as the user's."""

    def __init__(self, compiled: Any) -> None:
        super().__init__()
        self.compiled = compiled

    @property
    def dtype(self) -> torch.dtype:
        return self.compiled.dtype

    def forward(self, *inputs: Any, **named: Any) -> Any:
        try:
            return self.compiled(*inputs, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = first_line(error)
            raise ModelError(
                f"synthesis.compile: the UNet cannot be compiled ({reason}); expected a C++ "
                "compiler (CPU) or Triton (GPU) on every node. Fix: install it there, e.g. "
                "apt-get install g++, or synthesis.compile=false"
            ) from error
