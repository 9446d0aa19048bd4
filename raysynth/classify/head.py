"""Stage 2: the linear head on frozen features, fitted to convergence in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

ITERATIONS = 100
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


def fit_head(
    features: Tensor,
    label: NDArray[Any],
    weights: NDArray[Any],
    weight_decay: float,
    classes: int,
) -> Head:
    """Weighted multinomial logistic regression with an L2 penalty, by full-batch L-BFGS.

    Minimises sum_i w_i CE_i + weight_decay / 2 * ||W||^2, with W on standardised features, so that
    one range of weight decays suits every encoder; the standardisation is folded into the head.

    Parameters
    ----------
    features : [N, D] float32; label : [N] int; weights : [N], sum 1.
    """
    mean = features.mean(dim=0)
    scale = features.std(dim=0).clamp(min=1e-5)
    x = ((features - mean) / scale).float()
    y = torch.tensor(label, device=x.device)
    w = torch.tensor(weights, dtype=x.dtype, device=x.device)
    weight = torch.zeros(classes, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        each = F.cross_entropy(x @ weight.T + bias, y, reduction="none")
        loss = (w * each).sum() + 0.5 * weight_decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    folded = (weight / scale).detach()
    return Head(folded, (bias.detach() - folded @ mean))
