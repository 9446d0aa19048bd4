"""Rows of named tensors: taken, joined, moved, whatever their shapes."""

from __future__ import annotations

import pytest
import torch

from raysynth.models.condition import Condition


def made(rows: int, start: int = 0) -> Condition:
    """States, and sizes as SDXL's are: whole numbers of another shape."""
    states = torch.arange(start, start + rows).float().view(-1, 1, 1).expand(-1, 3, 2)
    return Condition({"states": states, "sizes": torch.arange(rows).view(-1, 1) + start})


def test_rows_are_taken_of_every_tensor_and_may_repeat():
    taken = made(4).take(torch.tensor([3, 0, 3]))
    assert len(taken) == 3
    assert taken["states"][:, 0, 0].tolist() == [3, 0, 3]
    assert taken["sizes"][:, 0].tolist() == [3, 0, 3]
    assert made(4).take([1])["states"].shape == (1, 3, 2)


def test_what_is_parted_into_rows_is_joined_again():
    whole = Condition.cat([made(2), made(3, start=7)])
    assert whole["sizes"][:, 0].tolist() == [0, 1, 7, 8, 9]
    again = Condition.cat(list(whole.rows()))
    assert all(torch.equal(again[name], whole[name]) for name in whole.tensors)


def test_states_of_shorter_prompts_end_in_zeros():
    """Z-Image's, which are as long as the longest prompt that they were made with."""
    short = Condition({"states": torch.ones(2, 3, 4), "count": torch.tensor([3, 2])})
    long = Condition({"states": torch.full((1, 5, 4), 2.0), "count": torch.tensor([5])})
    for order in ([short, long], [long, short]):
        whole = Condition.cat(order)
        assert whole["states"].shape == (3, 5, 4)
        ones = whole["states"][whole["states"][:, 0, 0] == 1]
        assert (ones[:, :3] == 1).all() and (ones[:, 3:] == 0).all()
        assert sorted(whole["count"].tolist()) == [2, 3, 5]


def test_whole_numbers_keep_their_type():
    moved = made(2).to(torch.device("cpu"), torch.bfloat16)
    assert (moved["states"].dtype, moved["sizes"].dtype) == (torch.bfloat16, torch.int64)


def test_tensors_of_different_lengths_are_no_condition():
    with pytest.raises(ValueError, match=r"got rows \{'a': 1, 'b': 2\}"):
        Condition({"a": torch.zeros(1), "b": torch.zeros(2)})
