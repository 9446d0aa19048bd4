"""One loss scale per adapter: an overflow halves it, calm doubles it, the others go on."""

from __future__ import annotations

import torch
from torch import nn

from raysynth.adapters.rows import flatten
from raysynth.finetune import scaling
from raysynth.finetune.scaling import LEAST, START, LossScale


def stepped(scale, rows, finite):
    taken = []
    with scale.skipping(torch.tensor(finite), rows):
        taken += [slot for slot, row in enumerate(rows.parameters) if row.grad is not None]
    return taken


def test_overflow_skips_and_halves_one_scale(monkeypatch):
    monkeypatch.setattr(scaling, "PATIENCE", 2)
    rows = flatten([nn.Parameter(torch.ones(3, 4))], 3)
    scale = LossScale.of("fp16", 3, torch.device("cpu"))
    assert stepped(scale, rows, [True, False, True]) == [0, 2]
    assert scale.values.tolist() == [START, START / 2, START]
    assert all(row.grad is not None for row in rows.parameters)
    assert stepped(scale, rows, [True, True, True]) == [0, 1, 2]
    assert scale.values.tolist() == [2 * START, START / 2, 2 * START]
    scale.reset(0)
    assert scale.values[0] == START


def test_scale_that_fell_to_the_bottom_is_no_excuse():
    scale = LossScale.of("fp16", 2, torch.device("cpu"))
    scale.values[1] = LEAST
    assert scale.tolerates(torch.tensor([False, False])).tolist() == [True, False]
    plain = LossScale.of("bf16", 2, torch.device("cpu"))
    assert plain.values.tolist() == [1.0, 1.0]
    assert plain.tolerates(torch.tensor([True, False])).tolist() == [True, False]
