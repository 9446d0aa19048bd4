"""Plain attention against SDPA on this machine's CPU, by the number of positions.

    python benchmarks/attention.py [--quick] [--repeats N]

One thread, two images, layers of 64 and 320 channels; least CPU seconds of a call, both kernels in
turns, and their ratio (above 1: SDPA is faster). The limit of `base.attention=auto` (decision 017)
lies between the two halves of the table.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from measure import finish, parser

from raysynth.models.attention import LONG, PROCESSORS

LAYERS = {64: 4, 320: 8}
"""Channels -> heads."""
POSITIONS = (16, 64, 256, 576, 1024, 2304, 4096)


def seconds(layer: Attention, states: torch.Tensor, *, backward: bool) -> float:
    """CPU seconds of a call."""
    given = states.detach().requires_grad_(backward)
    begin = time.process_time()
    with torch.set_grad_enabled(backward):
        out = layer(given)
    if backward:
        out.sum().backward()
    return time.process_time() - begin


def ratio(channels: int, positions: int, repeats: int, *, backward: bool) -> float:
    """Plain products' least seconds over SDPA's."""
    heads = LAYERS[channels]
    layer = Attention(channels, heads=heads, dim_head=channels // heads)
    states = torch.randn(2, positions, channels)
    taken: dict[str, list[float]] = {name: [] for name in PROCESSORS}
    for _ in range(1 + repeats):
        for name, processor in PROCESSORS.items():
            layer.set_processor(processor())
            taken[name].append(seconds(layer, states, backward=backward))
    plain, fused = (min(taken[name][1:]) for name in ("plain", "sdpa"))
    return round(plain / fused, 2)


def main() -> None:
    """The ratios, and their ranges on both sides of the limit."""
    asked = parser(str(__doc__)).parse_args()
    repeats = asked.repeats or (2 if asked.quick else 9)
    positions = POSITIONS[: 5 if asked.quick else None]
    torch.set_num_threads(1)
    numbers: dict[str, Any] = {}
    for kind, backward in (("forward", False), ("forward and backward", True)):
        found = {n: {c: ratio(c, n, repeats, backward=backward) for c in LAYERS} for n in positions}
        short, long = (
            [each for n, of in found.items() if (n >= LONG) is side for each in of.values()]
            for side in (False, True)
        )
        ranges = {"below": [min(short), max(short)], "above": [min(long), max(long)]}
        numbers[kind] = {"plain / SDPA": found, "ranges": ranges}
    finish("attention", numbers, {}, asked.quick)


if __name__ == "__main__":
    main()
