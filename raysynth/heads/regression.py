"""Stage 2: linear heads on frozen features, all weight decays fitted together in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysynth.heads.lbfgs import Objective as Problems
from raysynth.heads.lbfgs import minimise
from raysynth.networks.linear import Head

ITERATIONS = 100
TOLERANCE = 1e-6
ADVERSARY_TEMPERATURE = 0.02
"""Of the group weights of `fit_robust_heads`, in units of the loss: the smaller, the closer to the
worst group alone, and the harder to minimise."""

Weigh = Callable[[Tensor], tuple[Tensor, Tensor]]
"""[S, N] cross-entropies of S heads -> ([S] losses, and their derivatives, [N] or [S, N])."""


def fit_heads(
    features: Tensor,
    label: NDArray[Any],
    weights: NDArray[Any],
    weight_decays: Sequence[float],
    classes: int,
    scale: Tensor | None = None,
) -> tuple[Head, ...]:
    """Weighted multinomial logistic regressions with an L2 penalty, one per weight decay.

    Each minimises sum_i w_i CE_i + weight_decay / 2 * ||W||^2, with W on standardised features, so
    that one range of weight decays suits every encoder.

    Parameters
    ----------
    features : [N, D] float32; label : [N] int; weights : [N], sum 1.
    scale : [D] spread of the features; None: that of these features.
    """
    w = torch.tensor(weights, dtype=torch.float32, device=features.device)
    return _solved(features, label, w, weight_decays, classes, lambda each: (each @ w, w), scale)


def fit_robust_heads(
    features: Tensor,
    label: NDArray[Any],
    group: NDArray[Any],
    weight_decays: Sequence[float],
    classes: int,
) -> tuple[Head, ...]:
    """Group-DRO heads: each minimises the worst group's mean cross-entropy (and an L2 penalty).

    Sagawa et al. 2020 (arXiv 1911.08731), equation 4, with the adversary's weights q_g given an
    entropy: max_q sum_g q_g loss_g - t KL(q || uniform) = t log mean_g exp(loss_g / t), which is
    smooth, so that it is solved to its end like the other heads; t = `ADVERSARY_TEMPERATURE`.

    Parameters
    ----------
    features : [N, D] float32; label, group : [N] int.
    """
    device, t = features.device, ADVERSARY_TEMPERATURE
    _, member = np.unique(group, return_inverse=True)
    share = F.one_hot(torch.tensor(member, device=device)).float()  # [N, G]
    share = share / share.sum(dim=0)

    def weigh(each: Tensor) -> tuple[Tensor, Tensor]:
        losses = each @ share  # [S, G]
        value = t * ((losses / t).logsumexp(dim=1) - math.log(share.shape[1]))
        return value, (losses / t).softmax(dim=1) @ share.T

    even = share.mean(dim=1)
    return _solved(features, label, even, weight_decays, classes, weigh)


def _eigen(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """[D] eigenvalues and [D, D] eigenvectors, in columns.

    In single precision torch's LAPACK (MKL) gives up where hundreds of features are zero for every
    image, as a network's may be: many equal eigenvalues. In double it does not.
    """
    try:
        spread, basis = torch.linalg.eigh(covariance)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        spread, basis = (found.float() for found in torch.linalg.eigh(covariance.double()))
    return spread, basis


def _solved(
    features: Tensor,
    label: NDArray[Any],
    w: Tensor,
    weight_decays: Sequence[float],
    classes: int,
    weigh: Weigh,
    scale: Tensor | None = None,
) -> tuple[Head, ...]:
    """All heads in one batch, in the eigenbasis of the weighted covariance.

    The basis leaves the penalty as it is; Boehning's bound on the Hessian (1992) preconditions
    there. The standardisation is folded into the heads. w [N]: weights of that covariance, sum 1.
    """
    scale = (features.std(dim=0) if scale is None else scale).clamp(min=1e-5)
    center = w @ features
    x = ((features - center) / scale).float()
    spread, basis = _eigen(x.T @ (x * w[:, None]))
    x = x @ basis
    one_hot = F.one_hot(torch.tensor(label, device=x.device), classes).T.float()  # [K, N]
    decay = torch.tensor(list(weight_decays), dtype=torch.float32, device=x.device)

    bound = 0.5 * spread.clamp(min=1e-6 * float(spread.max())) + decay[:, None]  # [S, D]
    inverse = torch.cat([1 / bound, torch.full_like(decay[:, None], 2.0)], dim=1)  # and the bias
    inverse = inverse[:, None].expand(-1, classes, -1).reshape(len(decay), -1)
    start = torch.zeros_like(inverse)
    found = minimise(_regressions(x, one_hot, weigh, decay), start, inverse, ITERATIONS, TOLERANCE)
    solved = found.view(len(decay), classes, -1)
    weight = solved[:, :, :-1] @ basis.T / scale
    bias = solved[:, :, -1] - weight @ center
    return tuple(Head(*pair) for pair in zip(weight, bias, strict=True))


def _regressions(x: Tensor, one_hot: Tensor, weigh: Weigh, decay: Tensor) -> Problems:
    """Losses of S heads of K classes, flat [S, K * (D + 1)], the bias last; x [N, D]."""
    classes, size = len(one_hot), x.shape[1] + 1

    def objective(flat: Tensor) -> tuple[Tensor, Tensor]:
        heads = flat.view(-1, size)  # [S * K, D + 1]
        z = torch.addmm(heads[:, -1:], heads[:, :-1], x.T).view(len(decay), classes, -1)
        logs = z.log_softmax(dim=1)  # [S, K, N]
        penalty = heads[:, :-1].reshape(len(decay), -1).square().sum(dim=1)
        loss, w = weigh(-(logs * one_hot).sum(dim=1))
        w = w if w.ndim == 1 else w[:, None]
        rest = ((logs.exp() - one_hot) * w).view(len(heads), -1)  # [S * K, N]
        slopes = rest @ x + decay.repeat_interleave(classes)[:, None] * heads[:, :-1]
        gradient = torch.cat([slopes, rest.sum(dim=1, keepdim=True)], dim=1)
        return loss + 0.5 * decay * penalty, gradient.view(flat.shape)

    return objective
