"""SELF's heads: fine-tuned on held-out images where two networks disagree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysynth.heads.judging import halves, predicted_by, score_on
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadSpec
from raysynth.networks.linear import Head

POINTS = (20, 100, 500)


EARLY_STOPS = (0.1, 0.2, 0.5)
"""Shares of the training after which the other network was stopped."""


LEARNING_RATES = (1e-4, 1e-3, 1e-2)
STEPS, BATCH, MOMENTUM = 250, 32, 0.9


def fit_self(specs: Sequence[HeadSpec], seen: Seen) -> dict[str, Fitted]:
    """The head on one snapshot; judged by the half whose images were not candidates."""
    assert seen.head is not None
    validation = seen.data.validation
    half, judge = halves(validation.group, seen.seed)
    predicted = predicted_by(seen.head, seen)
    best, chosen, top = seen.head, {}, score_on(judge, predicted, seen)
    picks = {
        (points, early): half[disagreement(seen.features.logits[half], other[half], points)]
        for early, other in early_stops(seen).items()
        for points in sorted({min(points, len(half)) for points in POINTS})
    }
    trials = list(product(picks, LEARNING_RATES))
    for (key, rate), head in zip(trials, _fine_tuned(seen, picks, trials), strict=True):
        labels = predicted_by(head, seen)
        if (score := score_on(judge, labels, seen)) > top:
            top, best, predicted = score, head, labels
            chosen = {"points": key[0], "early_stop": key[1], "head_learning_rate": rate}
    return {spec.name: Fitted(best, predicted, judge, chosen) for spec in specs}


def early_stops(seen: Seen) -> dict[int, NDArray[np.float32]]:
    """Logits of the evaluations nearest to each share of the steps so far, by step."""
    found = {}
    for share in EARLY_STOPS if seen.features.earlier else ():
        step, logits = min(seen.features.earlier, key=lambda one: abs(one[0] - share * seen.step))
        found[step] = logits
    return found


def disagreement(
    final: NDArray[np.float32], early: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """Rows of the `count` largest KL(early || final) of softmax predictions; logits [M, K]."""
    p, q = (torch.tensor(logits).log_softmax(dim=1) for logits in (final, early))
    divergence = (q.exp() * (q - p)).sum(dim=1)
    return divergence.topk(count).indices.numpy()


def _fine_tuned(
    seen: Seen,
    picks: dict[tuple[int, int], NDArray[np.int64]],
    trials: Sequence[tuple[tuple[int, int], float]],
) -> list[Head]:
    """All trials' heads, side by side: SGD with momentum on class-balanced batches."""
    if not trials:
        return []
    assert seen.head is not None
    device, label = seen.device, seen.data.validation.label
    x = torch.tensor(seen.features.validation, device=device)
    y = torch.tensor(label, device=device)
    weight = seen.head.weight.repeat(len(trials), 1, 1)  # [S, K, D]
    bias = seen.head.bias.repeat(len(trials), 1)
    rate = torch.tensor([rate for _, rate in trials], device=device)
    speed_w, speed_b = torch.zeros_like(weight), torch.zeros_like(bias)
    rng = np.random.default_rng([seen.seed, 311])
    drawn = np.stack([_class_balanced(label, picks[key], rng) for key, _ in trials], axis=1)
    for rows in torch.tensor(drawn, device=device):  # [S, B]
        slope = _slope(weight, bias, x[rows], y[rows])  # [S, B, K]
        speed_w = MOMENTUM * speed_w + slope.transpose(1, 2) @ x[rows]
        speed_b = MOMENTUM * speed_b + slope.sum(dim=1)
        weight, bias = weight - rate[:, None, None] * speed_w, bias - rate[:, None] * speed_b
    return [Head(*pair) for pair in zip(weight, bias, strict=True)]


def _slope(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Derivative of the mean cross-entropy by the logits [S, B, K]."""
    logits = x @ weight.transpose(1, 2) + bias[:, None]
    return (logits.softmax(dim=2) - F.one_hot(y, weight.shape[1])) / x.shape[1]


def _class_balanced(
    label: NDArray[np.int64], rows: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """[STEPS, BATCH] of the rows, every class that occurs equally often."""
    sizes = np.bincount(label[rows])
    weight = 1.0 / sizes[label[rows]]
    return rng.choice(rows, (STEPS, BATCH), p=weight / weight.sum())
