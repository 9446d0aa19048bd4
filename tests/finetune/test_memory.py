"""What is measured before packing: the memory that work needs, whatever was freed before it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raysynth.finetune.memory import held_and_peak, told_bytes
from raysynth.finetune.training import start

SIZE = 2**26
"""Bytes that the work needs."""


def work() -> None:
    """64 tensors of 1 MiB at once: glibc keeps their memory after they are freed."""
    blocks = [torch.ones(SIZE // 64 // 4) for _ in range(64)]
    assert all(block[-1] == 1 for block in blocks)


def test_rise_is_what_the_work_needs():
    for _ in range(3):
        held, peak = held_and_peak(torch.device("cpu"), work)
        assert peak - held == pytest.approx(SIZE, rel=0.1)


@pytest.mark.gpu
def test_rise_on_a_gpu():
    device = torch.device("cuda")
    held, peak = held_and_peak(device, lambda: torch.ones(SIZE // 4, device=device).sum().item())
    assert peak - held == pytest.approx(SIZE, rel=0.1)


def test_what_captions_say_is_counted(room, tmp_path):
    pack = room.pack(room.config(), tmp_path, ["0-0", "3-0"])
    captioned = [replace(job, captions=job.ids) for job in pack.jobs]
    plain, told = (start(pack, jobs) for jobs in (pack.jobs, captioned))
    most = max(len(job.ids) for job in pack.jobs)
    assert told.fit.footprint.per_adapter - plain.fit.footprint.per_adapter == pytest.approx(
        (most - 1) * told_bytes(plain.base)
    )
