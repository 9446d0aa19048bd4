"""AdamW over a phase: decay of matrices alone, warm-up, a cosine to zero.

torch's function, not its class: `torch.optim.AdamW` imports torch's compiler in its first step,
1.8 s of every process that trains for half a minute. The steps are the same, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MAX_GRAD_NORM = 5.0
WARM_UP = 0.2
"""Share of a phase's steps in which the learning rate rises."""


def rate_factor(step: int, steps: int) -> float:
    """Of the peak learning rate at step `step` (from 0) of `steps`."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True)
class _Group:
    """Parameters of one weight decay, their moments and how many steps each has taken."""

    weight_decay: float
    parameters: list[nn.Parameter]
    means: list[Tensor]
    squares: list[Tensor]
    taken: list[Tensor]

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], weight_decay: float) -> _Group:
        each = list(parameters)
        means, squares = ([torch.zeros_like(p) for p in each] for _ in range(2))
        taken = [torch.zeros((), device=p.device) for p in each]
        return cls(weight_decay, each, means, squares, taken)

    def step(self, rate: float) -> None:
        """Of those that have a gradient."""
        rows = [row for row in self._rows() if row[0].grad is not None]
        if not rows:
            return
        parameters, means, squares, taken = (list(column) for column in zip(*rows, strict=True))
        adamw(
            parameters,
            [p.grad for p in parameters],
            means,
            squares,
            [],
            taken,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def _rows(self) -> Iterable[tuple[nn.Parameter, Tensor, Tensor, Tensor]]:
        return zip(self.parameters, self.means, self.squares, self.taken, strict=True)


class AdamW:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), without weight decay on norms and biases."""

    def __init__(self, model: nn.Module, rate: float, weight_decay: float, steps: int) -> None:
        """`rate`: the peak; `steps`: of the whole phase."""
        self.rate, self.steps, self.done = rate, steps, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        self._groups = (_Group.of(matrices, weight_decay), _Group.of(others, 0.0))

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """Descend along the gradient of a loss, clipped to `MAX_GRAD_NORM`."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        rate = self.rate * rate_factor(self.done, self.steps)
        for group in self._groups:
            group.step(rate)
        self.done += 1
