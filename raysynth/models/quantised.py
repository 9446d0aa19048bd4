"""Frozen linear layers that are kept in fewer bits, and multiplied as numbers again.

int8: a row of a matrix is its largest number / 127, and as many whole numbers (absmax, row by row;
Dettmers et al. 2022, arXiv 2208.07339, section 2). nf4: 64 numbers share a scale and are each one
of sixteen values, the quantiles of a normal distribution; scales are quantised again (Dettmers et
al. 2023, arXiv 2305.14314, section 3; bitsandbytes).

Every product makes the layer's matrix anew, forward and backward, and nothing of its size is kept
between: activations are not quantised, so that no row depends on its neighbours in a batch.

Shape suffixes: O out, I in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raysynth.errors import ModelError, first_line
from raysynth.models.quantisation import BLOCK, KEY

LEVELS = 127


class Packed(Protocol):
    """A matrix in a form that takes fewer bits, on its device."""

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers and scales."""

    def dense(self, dtype: torch.dtype) -> Tensor:
        """[O, I] as numbers again."""


@dataclass(frozen=True)
class Int8:
    """A matrix as whole numbers of eight bits, a scale for each row."""

    numbers: Tensor
    """[O, I] int8."""
    scales: Tensor
    """[O, 1] float32."""

    @classmethod
    def of(cls, weight: Tensor) -> Int8:
        """Round [O, I] weights."""
        W_OI = weight.float()
        scales = W_OI.abs().amax(1, keepdim=True) / LEVELS
        numbers = (W_OI / scales.clamp(min=torch.finfo(torch.float32).tiny)).round_()
        return cls(numbers.to(torch.int8), scales)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers and scales."""
        return self.numbers.nbytes + self.scales.nbytes

    def dense(self, dtype: torch.dtype) -> Tensor:
        """[O, I]: multiplied in float32, rounded once."""
        return (self.numbers * self.scales).to(dtype)


@dataclass(frozen=True)
class NF4:
    """A matrix as bitsandbytes' four-bit NormalFloats."""

    numbers: Tensor
    """uint8, two to a byte."""
    state: Any
    """bitsandbytes' own, with the scales."""

    @classmethod
    def of(cls, weight: Tensor) -> NF4:
        """Round [O, I] weights."""
        from bitsandbytes.functional import quantize_4bit

        found = quantize_4bit(
            weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        return cls(*found)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers and scales; what all layers share is left out."""
        return self.numbers.nbytes + self.state.absmax.nbytes + self.state.state2.absmax.nbytes

    def dense(self, dtype: torch.dtype) -> Tensor:
        """[O, I]."""
        from bitsandbytes.functional import dequantize_4bit

        found: Tensor = dequantize_4bit(self.numbers, self.state)
        return found.to(dtype)


FORMS: dict[str, type[Int8] | type[NF4]] = {"int8": Int8, "nf4": NF4}


class QuantisedLinear(nn.Linear):
    """A frozen linear layer in fewer bits; it stays on the device where it was made."""

    packed: Packed

    def __init__(self, layer: nn.Linear, packed: Packed) -> None:
        """`layer`: whose bias and sizes it takes over; `packed`: its matrix."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.packed, self._dtype = packed, layer.weight.dtype
        self.register_parameter("bias", layer.bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[O, I] as numbers, made anew each time that it is asked for."""
        return self.packed.dense(self._dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., O] of [..., I], in the precision that autocast would take."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        if torch.is_grad_enabled() and x.requires_grad:
            found: Tensor = _Product.apply(x, self)
            return found
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """[..., O] in the precision of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.packed.dense(x.dtype), bias)


class _Product(torch.autograd.Function):
    """W x + b, whose backward pass makes W anew: autograd would keep one of every layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.packed = layer.packed
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.packed.dense(gradient.dtype), None


@torch.no_grad()
def quantise(module: nn.Module, form: str, device: torch.device) -> None:
    """Keep all linear layers of a frozen model in a form, on the device; a layer at a time.

    Raises ModelError: the device has no such form.
    """
    try:
        FORMS[form].of(torch.ones(1, BLOCK, device=device)).dense(torch.float32)
    except Exception as error:  # whatever a device lacks: the library names no kind
        raise ModelError(
            f"{KEY}={form}: there is no such form on {device} ({first_line(error)}). Fix: "
            f"{KEY}=int8, or none"
        ) from None
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear:  # others have products of their own
            packed = FORMS[form].of(layer.weight.to(device))
            module.set_submodule(name, QuantisedLinear(layer, packed))


def kept_bytes(module: nn.Module) -> int:
    """Bytes of a model's weights, quantised ones as they are kept."""
    packed = (m.packed.nbytes for m in module.modules() if isinstance(m, QuantisedLinear))
    return sum(packed) + sum(parameter.nbytes for parameter in module.parameters())
