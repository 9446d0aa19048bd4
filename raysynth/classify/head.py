"""Stage 2: linear heads on frozen features, all weight decays fitted together in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysynth.classify.lbfgs import Objective as Problems
from raysynth.classify.lbfgs import minimise

ITERATIONS = 100
TOLERANCE = 1e-6
Objective = Literal["erm", "balanced"]


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias; weight [K, D], bias [K]."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> NDArray[np.int64]:
        """[N] predicted labels of [N, D] features."""
        return (features @ self.weight.T + self.bias).argmax(dim=1).cpu().numpy()


def image_weights(group: NDArray[Any], objective: Objective) -> NDArray[np.float64]:
    """[N] weights summing to 1: every image alike (`erm`), or every group alike (`balanced`)."""
    if objective == "erm":
        return np.full(len(group), 1.0 / len(group))
    sizes = np.bincount(group)
    return 1.0 / (sizes[group] * (sizes > 0).sum())


def fit_heads(
    features: Tensor,
    label: NDArray[Any],
    weights: NDArray[Any],
    weight_decays: Sequence[float],
    classes: int,
) -> tuple[Head, ...]:
    """Weighted multinomial logistic regressions with an L2 penalty, one per weight decay.

    Each minimises sum_i w_i CE_i + weight_decay / 2 * ||W||^2, with W on standardised features, so
    that one range of weight decays suits every encoder; the standardisation is folded into the
    head. All are solved in one batch, in the eigenbasis of the weighted covariance (which leaves
    the penalty as it is) and preconditioned there by Boehning's bound on the Hessian (1992).

    Parameters
    ----------
    features : [N, D] float32; label : [N] int; weights : [N], sum 1.
    """
    scale = features.std(dim=0).clamp(min=1e-5)
    w = torch.tensor(weights, dtype=torch.float32, device=features.device)
    center = w @ features
    x = ((features - center) / scale).float()
    spread, basis = torch.linalg.eigh(x.T @ (x * w[:, None]))
    x = x @ basis
    one_hot = F.one_hot(torch.tensor(label, device=x.device), classes).T.float()  # [K, N]
    decay = torch.tensor(list(weight_decays), dtype=torch.float32, device=x.device)

    bound = 0.5 * spread.clamp(min=1e-6 * float(spread.max())) + decay[:, None]  # [S, D]
    inverse = torch.cat([1 / bound, torch.full_like(decay[:, None], 2.0)], dim=1)  # and the bias
    inverse = inverse[:, None].expand(-1, classes, -1).reshape(len(decay), -1)
    start = torch.zeros_like(inverse)
    found = minimise(_regressions(x, one_hot, w, decay), start, inverse, ITERATIONS, TOLERANCE)
    solved = found.view(len(decay), classes, -1)
    weight = solved[:, :, :-1] @ basis.T / scale
    bias = solved[:, :, -1] - weight @ center
    return tuple(Head(*pair) for pair in zip(weight, bias, strict=True))


def _regressions(x: Tensor, one_hot: Tensor, w: Tensor, decay: Tensor) -> Problems:
    """Losses of S heads of K classes, flat [S, K * (D + 1)], the bias last; x [N, D], w [N]."""
    classes, size = len(one_hot), x.shape[1] + 1

    def objective(flat: Tensor) -> tuple[Tensor, Tensor]:
        heads = flat.view(-1, size)  # [S * K, D + 1]
        z = torch.addmm(heads[:, -1:], heads[:, :-1], x.T).view(len(decay), classes, -1)
        logs = z.log_softmax(dim=1)  # [S, K, N]
        penalty = heads[:, :-1].reshape(len(decay), -1).square().sum(dim=1)
        value = -((logs * one_hot).sum(dim=1) @ w) + 0.5 * decay * penalty
        rest = ((logs.exp() - one_hot) * w).view(len(heads), -1)  # [S * K, N]
        slopes = rest @ x + decay.repeat_interleave(classes)[:, None] * heads[:, :-1]
        gradient = torch.cat([slopes, rest.sum(dim=1, keepdim=True)], dim=1)
        return value, gradient.view(flat.shape)

    return objective
