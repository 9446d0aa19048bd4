"""Parameters of P models as the rows of one buffer.

Clipping is then one norm over rows, an optimizer state is a row, and a checkpoint of one adapter is
a row of each: it can go on in any pack.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """[P, n] values and gradients that the parameters view."""

    values: Tensor
    gradients: Tensor
    parameters: list[nn.Parameter]
    """P parameters [n], one row each, with gradients: what the optimizer steps."""


@torch.no_grad()
def flatten(parameters: Sequence[nn.Parameter], models: int) -> Rows:
    """Move parameters into one buffer, in place; autograd then accumulates into its gradients.

    Parameters
    ----------
    parameters : [P, ...] each; with `models` = 1 any shape.
    """
    # Rows interleave the parameters, so their strides are not what DDP's buckets would like.
    warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout")
    sizes = [parameter.numel() // models for parameter in parameters]
    first = parameters[0]
    values = torch.empty(models, sum(sizes), device=first.device, dtype=torch.float32)
    gradients = torch.zeros_like(values)
    start = 0
    for parameter, size in zip(parameters, sizes, strict=True):
        shape, columns = parameter.shape, slice(start, start + size)
        values[:, columns] = parameter.view(models, size)
        parameter.data = values[:, columns].view(shape)
        parameter.grad = gradients[:, columns].view(shape)
        parameter.requires_grad_(True)
        start += size
    rows = [nn.Parameter(values[p]) for p in range(models)]
    for p, row in enumerate(rows):
        row.grad = gradients[p]
    return Rows(values, gradients, rows)


def clip_rows(gradients: Tensor, max_norm: float) -> Tensor:
    """Scale every row of [P, n] gradients to at most `max_norm`, in place.

    Rows that are not finite become zero. Returns [P] bool, which rows were finite.
    """
    norm = torch.linalg.vector_norm(gradients, dim=1)
    finite = norm.isfinite()
    gradients.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0)[:, None])
    gradients.masked_fill_(~finite[:, None], 0.0)
    return finite
