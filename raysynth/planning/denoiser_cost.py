"""What a network costs, from its configuration alone: parameters, FLOPs and activation bytes.

The network is laid out on torch's meta device: shapes flow through it, no number is computed and no
memory is taken. So Stable Diffusion's costs are known on a laptop, before any weight is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from raysynth.adapters.grouped_lora import GroupedConv2d, GroupedLinear, inject
from raysynth.models.attention import takes_processors
from raysynth.models.family import Family, layers_of
from raysynth.planning.network_cost import UNetCost


def unet_cost(
    shape: Mapping[str, Any],
    targets: Sequence[str] | None,
    rank: int,
    checkpointing: bool,
    tokens: int,
    family: Family,
) -> UNetCost:
    """Cost of the network that a diffusers configuration describes; takes seconds.

    Parameters
    ----------
    tokens : length of a prompt.
    family : of the base.
    targets : kinds of layers that LoRA adapts; None: all weights are trained.
    """
    unet, parameters, trained = _laid_out(shape, targets, rank, family)
    if takes_processors(unet):
        unet.set_attn_processor(_FusedShapes())
    _cast_as_on_a_gpu(unet)
    call = partial(_call, family, unet, family.given(shape), tokens)
    # A patch besides the mode: checkpoints compute again in autograd's own threads.
    with _ShapesAlone(), patch.object(F, "scaled_dot_product_attention", _fused):
        kept, largest = _kept_bytes(family, unet, call)
        if checkpointing:
            unet.enable_gradient_checkpointing()
            kept = _kept_bytes(family, unet, call)[0] + largest
        with FlopCounterMode(display=False) as counter:
            out = call()
            forward = counter.get_total_flops()
            out.float().square().mean().backward()
    return UNetCost(parameters, trained, forward, counter.get_total_flops(), kept)


def _laid_out(
    shape: Mapping[str, Any], targets: Sequence[str] | None, rank: int, family: Family
) -> tuple[Any, int, int]:
    """The network on the meta device, numbers that it has, and those that are trained."""
    with torch.device("meta"):
        unet: Any = family.build(dict(shape))
    for parameter in unet.parameters():
        parameter.data = parameter.data.bfloat16()
    parameters = sum(p.numel() for p in unet.parameters())
    trained = parameters
    if targets is not None:
        lora = inject(unet, layers_of(family, targets), rank, float(rank), 1)
        trained = sum(p.numel() for p in lora.parameters())
        lora.route([0])
    return unet, parameters, trained


def _cast_as_on_a_gpu(unet: Any) -> None:
    """Normalisations in float32, products in bfloat16: what torch.autocast does on a GPU.

    A normalised image then stays twice: in float32, and rounded for the product that follows.
    """
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))
        elif isinstance(module, nn.Linear | nn.Conv2d | GroupedLinear | GroupedConv2d):
            module.register_forward_pre_hook(lambda _, given: (given[0].bfloat16(), *given[1:]))


def _call(family: Family, unet: Any, given: tuple[int, int, int], tokens: int) -> Tensor:
    noisy = torch.empty(1, *given, device="meta", dtype=torch.bfloat16)
    told = family.blank(unet, 1, tokens)
    return family.predict(unet, noisy, torch.ones(1, device="meta"), told)


def _kept_bytes(family: Family, unet: Any, call: Callable[[], Tensor]) -> tuple[int, int]:
    """Bytes kept for the backward pass, and those of the block that keeps most."""
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    kept: dict[int, Any] = {}
    blocks: list[int] = []
    before: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    def total() -> int:
        return sum(storage.nbytes() for storage in kept.values())

    hooks = []
    kinds = family.blocks()
    for module in unet.modules():
        if type(module) in kinds:
            hooks.append(module.register_forward_pre_hook(lambda *_: before.append(total())))
            hooks.append(
                module.register_forward_hook(lambda *_: blocks.append(total() - before.pop()))
            )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    for hook in hooks:
        hook.remove()
    return total(), max(blocks, default=0)


class _FusedShapes:
    """An attention processor with the FLOPs and the kept tensors of fused attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        fused: Tensor = _Fused.apply(query, key, value)
        out: Tensor = attn.to_out[0](fused)
        return out


class _ShapesAlone(TorchFunctionMode):
    """What needs numbers is left out."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__setitem__ and getattr(args[1], "dtype", None) == torch.bool:
            return None  # where, no shape can say; how many bytes, it changes nothing
        return func(*args, **(kwargs or {}))


def _fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """PyTorch's fused attention as a GPU computes it."""
    found: Tensor = _Fused.apply(query.bfloat16(), key.bfloat16(), value.bfloat16())
    return found


class _Fused(torch.autograd.Function):
    """softmax(Q K') V without the matrix of scores (Dao et al. 2022): Q, K, V and O are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = (query @ key.mT) @ value
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _ = ctx.saved_tensors
        scores = query @ key.mT
        (gradient @ value.mT) @ key  # FLOPs of the gradients of the scores and of Q
        return scores @ key, scores.mT @ query, scores.mT @ gradient
