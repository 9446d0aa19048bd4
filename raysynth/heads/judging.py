"""How a fitted head is judged on validation: by all of it, or by the half it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raysynth.groups.metrics import group_metrics
from raysynth.heads.seen import Fitted, Seen
from raysynth.heads.spec import HeadSpec
from raysynth.networks.linear import Head


def judged_by_all(
    specs: Sequence[HeadSpec], heads: Sequence[Head], seen: Seen
) -> dict[str, Fitted]:
    """Heads that saw no validation image, judged by all of them."""
    validation = torch.tensor(seen.features.validation, device=seen.device)
    return {
        spec.name: Fitted(head, head.predict(validation))
        for spec, head in zip(specs, heads, strict=True)
    }


def halves(group: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted rows to fit to and rows to judge by: half of each group each, at random.

    Of an odd number the judging half gets one more; a group of one image, which the stage refuses,
    would judge only.
    """
    rng = np.random.default_rng([seed, 307])
    fit = [
        rng.permutation(rows)[: len(rows) // 2]
        for rows in (np.flatnonzero(group == g) for g in np.unique(group))
    ]
    first = np.sort(np.concatenate(fit))
    return first, np.setdiff1d(np.arange(len(group)), first)


def score_on(rows: NDArray[np.int64] | slice, predicted: NDArray[np.int64], seen: Seen) -> float:
    """The validation score of some rows of validation, from predictions for all of it [M]."""
    data = seen.data
    label, group = data.validation.label[rows], data.validation.group[rows]
    counts = data.train.counts(data.groups.count)
    return group_metrics(predicted[rows], label, group, counts).score


def predicted_by(head: Head, seen: Seen) -> NDArray[np.int64]:
    """[M] a head's predictions for validation."""
    return head.predict(torch.tensor(seen.features.validation, device=seen.device))
