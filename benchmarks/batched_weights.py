"""Many seeds of the small network trained together against one after another, one thread.

    python benchmarks/batched_weights.py [--quick] [--repeats N]

`grouped`: the S networks side by side in the channels, convolutions with groups = S. `vmap`:
torch.func over stacked weights, in float32 (its batch normalisation refuses autocast's bfloat16).
Each seed has its own batch of images; a step is forward,
backward and fused AdamW. Numbers are the CPU milliseconds of a step per seed, variants taken in
turns. No bar: a measurement behind docs/decisions/031-heads-swept.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from measure import finish, parser
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from raysynth.classify.backbone import SmallNetwork
from raysynth.config import ClassifierConfig

BATCH, SIDE, CLASSES = 128, 32, 2


def networks(count: int) -> list[SmallNetwork]:
    """Fresh networks of the default shape, channels last."""
    made = [SmallNetwork(ClassifierConfig().widths, 3, CLASSES) for _ in range(count)]
    return [network.to(memory_format=torch.channels_last) for network in made]


def grouped(parts: list[SmallNetwork]) -> nn.Module:
    """One network whose channels are those of all parts, side by side."""
    whole = copy.deepcopy(parts[0])
    count = len(parts)
    for name, module in list(whole.named_modules()):
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            continue
        owner = whole.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d):
            wide: nn.Module = nn.Conv2d(
                module.in_channels * count,
                module.out_channels * count,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,
                groups=count,
                bias=False,
            )
        else:
            wide = nn.BatchNorm2d(module.num_features * count)
        with torch.no_grad():
            weights = [part.get_submodule(name).weight for part in parts]
            wide.weight.copy_(torch.cat(weights))  # type: ignore[operator, arg-type]
        setattr(owner, name.rpartition(".")[2], wide)
    whole.classifier = _Heads(parts)  # type: ignore[assignment]
    return whole.to(memory_format=torch.channels_last)


class _Heads(nn.Module):
    """The parts' linear heads on their own share of the features: [B, S * D] -> [B, S, K]."""

    def __init__(self, parts: list[SmallNetwork]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([part.classifier.weight for part in parts]))
        self.bias = nn.Parameter(torch.stack([part.classifier.bias for part in parts]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (len(self.weight), -1))
        return torch.einsum("bsd,skd->bsk", x, self.weight) + self.bias


def separate_step(parts: list[SmallNetwork], dtype: torch.dtype) -> Callable[[], Any]:
    """S steps, one network after another."""
    optimizers = [torch.optim.AdamW(part.parameters(), fused=True) for part in parts]
    x, y = _batch(len(parts))

    def step() -> None:
        for seed, (part, optimizer) in enumerate(zip(parts, optimizers, strict=True)):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits = part(x[seed].to(dtype, memory_format=torch.channels_last))
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y[seed]).backward()
            optimizer.step()

    return step


def grouped_step(parts: list[SmallNetwork], dtype: torch.dtype) -> Callable[[], Any]:
    """One step of the network that holds all."""
    whole = grouped(parts)
    optimizer = torch.optim.AdamW(whole.parameters(), fused=True)
    x, y = _batch(len(parts))
    side_by_side = torch.cat(list(x), dim=1)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = whole(side_by_side.to(dtype, memory_format=torch.channels_last))
        optimizer.zero_grad()
        F.cross_entropy(logits.float().permute(1, 2, 0), y).mul(len(parts)).backward()
        optimizer.step()

    return step


def vmap_step(parts: list[SmallNetwork], dtype: torch.dtype) -> Callable[[], Any]:
    """One step of torch.func's stacked weights."""
    base = copy.deepcopy(parts[0])
    for module in (*parts, base):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):  # vmap cannot update running statistics in place
                norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
                norm.num_batches_tracked = None
    weights, _ = stack_module_state(parts)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(weights.values(), fused=True)
    x, y = _batch(len(parts))

    def loss(weight: dict[str, Tensor], pixels: Tensor, label: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = functional_call(base, weight, (pixels.to(dtype),))
        return F.cross_entropy(logits.float(), label)

    def step() -> None:
        slopes = vmap(grad(loss))({k: v.detach() for k, v in weights.items()}, x, y)
        for name, weight in weights.items():
            weight.grad = torch.empty_like(weight).copy_(slopes[name])
        optimizer.step()

    return step


def _batch(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, BATCH, 3, SIDE, SIDE, generator=generator)
    return x, torch.randint(0, CLASSES, (count, BATCH), generator=generator)


def main() -> None:
    """Measure all."""
    chosen = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    repeats = chosen.repeats or (3 if chosen.quick else 15)
    variants = {"separate": separate_step, "grouped": grouped_step, "vmap": vmap_step}
    numbers: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float32):
        for count in (2, 4) if chosen.quick else (2, 4, 8):
            steps = {
                name: make(networks(count), dtype)
                for name, make in variants.items()
                if name != "vmap" or dtype == torch.float32
            }
            spent: dict[str, list[float]] = {name: [] for name in steps}
            for turn in range(repeats + 1):
                for name, step in steps.items():
                    start = time.process_time()
                    step()
                    if turn:
                        spent[name].append(1000 * (time.process_time() - start) / count)
            row = {name: round(median(values), 1) for name, values in spent.items()}
            numbers[f"{str(dtype).removeprefix('torch.')}, {count} seeds, ms per seed"] = row
    finish("batched_weights", numbers, {}, chosen.quick)


if __name__ == "__main__":
    main()
