"""L-BFGS on many small problems at once, in closed tensor operations and without autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HISTORY = 10
HALVINGS = 12
SUFFICIENT = 1e-4  # Armijo's constant
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""[S, P] points -> ([S] values, [S, P] gradients) of S independent problems."""


def minimise(
    objective: Objective, start: Tensor, scale: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """Minimise S problems side by side; Nocedal & Wright (2006), algorithm 7.5.

    Every problem has its own curvature pairs, step length and end, so its result does not depend
    on its neighbours. Steps are halved until Armijo's condition holds (to rounding).

    Parameters
    ----------
    start : [S, P]; scale : [S, P], a positive diagonal estimate of the inverse Hessian.
    tolerance : a problem is finished when no entry of its gradient is larger.
    """
    x = start
    value, gradient = objective(x)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    gamma = torch.ones_like(value)
    running = torch.ones_like(value, dtype=torch.bool)
    for _ in range(iterations):
        running = running & (gradient.abs().amax(dim=1) > tolerance)
        if not running.any():
            break
        direction = -_product(gradient, pairs, scale * gamma[:, None])
        length, found = _line_search(objective, x, value, gradient, direction, running)
        step = length[:, None] * direction
        running = running & (length > 0)
        new_value, new_gradient = found
        change = new_gradient - gradient
        x, value, gradient = x + step, new_value, new_gradient
        curvature = (step * change).sum(dim=1)
        size = (change * scale * change).sum(dim=1)
        good = curvature > 1e-10 * size
        # A pair without curvature is kept as a blank, so that all problems' histories align.
        pairs.append((step, change, torch.where(good, 1 / curvature, 0.0)))
        gamma = torch.where(good, curvature / size, gamma)
        del pairs[:-HISTORY]
    return x


def _product(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """Inverse Hessian times gradient, [S, P]: the two-loop recursion."""
    q = gradient
    shares = []
    for step, change, weight in reversed(pairs):
        share = weight * (step * q).sum(dim=1)
        q = q - share[:, None] * change
        shares.append(share)
    q = q * scale
    for (step, change, weight), share in zip(pairs, reversed(shares), strict=True):
        back = weight * (change * q).sum(dim=1)
        q = q + (share - back)[:, None] * step
    return q


def _line_search(
    objective: Objective,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    running: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """[S] step lengths, 0 where none helps; and value and gradient there."""
    slope = (gradient * direction).sum(dim=1)
    slack = 4 * torch.finfo(x.dtype).eps * value.abs()
    length = (running & (slope < 0)).to(x.dtype)
    for _ in range(HALVINGS):
        found = objective(x + length[:, None] * direction)
        enough = found[0] <= value + SUFFICIENT * length * slope + slack
        if enough.all():
            return length, found
        length = torch.where(enough, length, length / 2)
    length = torch.where(enough, length, 0.0)
    return length, objective(x + length[:, None] * direction)
