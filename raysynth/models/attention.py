"""Which attention kernel a network computes with: as configured, or the one that fits it.

Fused attention (PyTorch's SDPA) wins on GPUs and on long sequences, and least on a CPU's short ones
(`benchmarks/attention.py`). The device and the size decide, nothing is timed: the kernels round
otherwise, and a run that a noisy clock gave the other one would not make the same images again.
UNets take either of diffusers' processors. A transformer's attention layers have one of their own,
whose kernel PyTorch chooses; `plain` makes it multiply matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch.nn.attention import SDPBackend, sdpa_kernel

PROCESSORS: dict[str, Callable[[], Any]] = {"plain": AttnProcessor, "sdpa": AttnProcessor2_0}
LONG = 1024
"""Positions from which on `auto` is SDPA on a CPU too: 1.7 to 3 times as fast forward and backward
there, 1 to 1.9 times below (decision 017)."""


def fitting(asked: str, device: torch.device, positions: int) -> str:
    """`plain` or `sdpa`: as `base.attention` asks, or for a network over so many positions."""
    if asked != "auto":
        return asked
    return "plain" if device.type == "cpu" and positions < LONG else "sdpa"


def use_attention(part: Any, asked: str, device: torch.device, positions: int) -> None:
    """Set the kernel of a network or autoencoder over so many positions; others stay as they are.

    `asked`: `base.attention`.
    """
    if takes_processors(part):
        part.set_attn_processor(PROCESSORS[fitting(asked, device, positions)]())
    elif asked == "plain" and isinstance(part, torch.nn.Module):
        _use_products(part)


def takes_processors(model: Any) -> bool:
    """Whether all attention layers of a model compute what diffusers' usual processors do."""
    found = getattr(model, "attn_processors", None) or {}
    usual = (AttnProcessor, AttnProcessor2_0)
    return bool(found) and all(type(each) in usual for each in found.values())


def _use_products(model: Any) -> None:
    """Let every attention layer's own processor multiply matrices, as PyTorch's SDPA can."""
    for module in model.modules():
        if isinstance(module, torch.nn.Module) and hasattr(module, "processor"):
            module.processor = _with_products(module.processor)


def _with_products(processor: Any) -> Any:
    kind = type(processor)

    class Products(kind):  # type: ignore[misc, valid-type]
        @wraps(kind.__call__)  # its signature says to diffusers what it takes
        def __call__(self, *given: Any, **named: Any) -> Any:
            with sdpa_kernel(SDPBackend.MATH):
                return kind.__call__(self, *given, **named)

    found: Any = Products.__new__(Products)
    found.__dict__.update(vars(processor))
    return found
