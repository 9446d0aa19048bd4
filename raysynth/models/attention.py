"""Which attention kernel a network computes with: as configured, or the one measured faster here.

Fused attention (PyTorch's SDPA) wins on GPUs and on long sequences, two batched matrix products
win on CPUs and on tiny latents, mostly in the backward pass; so a worker measures. So it is with
UNets, whose attention layers take either of diffusers' processors. A transformer's have one of
their own, whose kernel PyTorch chooses; `plain` makes it multiply matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base

PROCESSORS: dict[str, Callable[[], Any]] = {"plain": AttnProcessor, "sdpa": AttnProcessor2_0}
REPETITIONS = 7
MARGIN = 1.5
"""The device's usual kernel is kept unless the other one is this much faster: a choice within the
noise of a busy machine would make two runs round differently."""


def pick_attention(base: Base, asked: str, rows: int, *, backward: bool) -> str:
    """Set the attention kernel of a loaded network; its name.

    Parameters
    ----------
    asked : `base.attention`: plain, sdpa, or auto to measure.
    rows : images per call in use.
    backward : measure the backward pass too.
    """
    if not takes_processors(base.model):
        if asked == "plain":
            _use_products(base.model)
        return "plain" if asked == "plain" else "sdpa"
    chosen = asked if asked != "auto" else _faster(base, rows, backward)
    base.model.set_attn_processor(PROCESSORS[chosen]())
    return chosen


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


def _faster(base: Base, rows: int, backward: bool) -> str:
    usual = "plain" if base.device.type == "cpu" else "sdpa"
    other = "sdpa" if usual == "plain" else "plain"
    attention, shapes = _largest(base)
    inputs = [_random(base, [min(rows, 4), *shape[1:]]) for shape in shapes]
    seconds = {name: _seconds(attention, name, inputs, base, backward) for name in (usual, other)}
    return other if seconds[other] * MARGIN < seconds[usual] else usual


def _largest(base: Base) -> tuple[Attention, list[torch.Size]]:
    """The attention layer over the most positions, and the shapes of what it is called with."""
    seen: list[tuple[int, Attention, list[torch.Size]]] = []

    def watch(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = [*positional, named.get("hidden_states"), named.get("encoder_hidden_states")]
        shapes = [s.shape for s in states if isinstance(s, Tensor)]
        seen.append((shapes[0][1], module, shapes))

    hooks = [
        module.register_forward_pre_hook(watch, with_kwargs=True)
        for module in base.model.modules()
        if isinstance(module, Attention)
    ]
    noisy, middle = _random(base, [1, *base.latent_shape]), torch.ones(1, device=base.device)
    with torch.no_grad():
        told = base.family.blank(base.model, 1, base.shape.tokens)
        Denoiser(base, base.model)(noisy, middle, told)
    for hook in hooks:
        hook.remove()
    _, attention, shapes = max(seen, key=lambda found: found[0])
    return attention, shapes


def _seconds(
    attention: Attention, name: str, inputs: list[Tensor], base: Base, backward: bool
) -> float:
    """Least seconds of a call; a CPU's own seconds, which other processes cannot stretch."""
    attention.set_processor(PROCESSORS[name]())
    on_cpu = base.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    taken = []
    for _ in range(1 + REPETITIONS):
        states = [x.detach().requires_grad_(backward) for x in inputs]
        begin = clock()
        with torch.set_grad_enabled(backward), base.autocast():
            out = attention(*states)
        if backward:
            out.float().sum().backward()
        if not on_cpu:
            getattr(torch, base.device.type).synchronize()
        taken.append(clock() - begin)
    return min(taken[1:])


def _random(base: Base, shape: list[int]) -> Tensor:
    return torch.ones(shape, device=base.device, dtype=base.model.dtype).cumsum(-1) / shape[-1]
