"""Batched L-BFGS: every problem reaches its own minimum, whatever the others do."""

from __future__ import annotations

import torch

from raysynth.heads.lbfgs import minimise


def quadratics(count: int, size: int):
    """Convex quadratics of condition numbers up to 10,000, and their minima [S, P]."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(count, size, size)).Q
    spread = torch.logspace(-4, 0, size).expand(count, size) * torch.rand(count, 1).add(0.5)
    matrix = basis @ torch.diag_embed(spread) @ basis.mT
    solution = torch.randn(count, size)

    def objective(x):
        off = x - solution
        gradient = torch.einsum("spq,sq->sp", matrix, off)
        return 0.5 * (off * gradient).sum(dim=1), gradient

    return objective, solution


def test_gradients_vanish_for_every_problem():
    objective, solution = quadratics(5, 6)
    start = torch.zeros_like(solution)
    found = minimise(objective, start, torch.ones_like(start), 100, 1e-6)
    assert objective(found)[1].abs().max() < 2e-6


def test_a_finished_problem_stands_still():
    objective, solution = quadratics(3, 6)
    start = torch.zeros_like(solution)
    start[1] = solution[1]
    found = minimise(objective, start, torch.ones_like(start), 100, 1e-6)
    assert torch.equal(found[1], solution[1])
    assert objective(found)[1].abs().max() < 2e-6


def test_steep_starts_are_tamed_by_the_line_search():
    def objective(x):  # log cosh: a full step overshoots by far with this scale
        return torch.log(torch.cosh(x)).sum(dim=1), torch.tanh(x)

    start = torch.tensor([[8.0, -5.0], [0.1, 3.0]])
    found = minimise(objective, start, torch.full_like(start, 50.0), 100, 1e-6)
    assert found.abs().max() < 1e-3  # where cosh is 1 in float32
