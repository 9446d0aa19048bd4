"""Workers that train together: two processes, one gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raysynth.pretraining.clip import _Texts, batch_loss
from raysynth.pretraining.crew import Crew, training_dtype
from raysynth.pretraining.order import Order
from raysynth.pretraining.start import begin
from tests.pretraining.conftest import CPU, open_making


def found(order: Order, crew: Crew) -> torch.Tensor:
    """The gradient of the pair's contrastive loss, as the optimizer would see it."""
    making = replace(open_making(order), crew=crew)
    clip = begin(making.settings, making.tokenizer, crew.rank, on_cpu=True).clip
    crew.same(clip)
    texts = _Texts(making, clip, frozen=False)
    batch_loss(making, clip, texts, torch.Generator().manual_seed(3)).backward()
    crew.mean_gradients(clip)
    return torch.cat([p.grad.flatten() for p in clip.parameters() if p.grad is not None])


def work(rank: int, order: Order, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(found(order, Crew(CPU.device, CPU.dtype, rank, 2)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(order, tmp_path):
    """Of features that are gathered, from weights that the leader gave."""
    given = order()
    mp.spawn(work, (given, str(tmp_path)), nprocs=2)
    one = found(given, CPU)
    for rank in (0, 1):
        both = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(both, one, atol=1e-5 * float(one.abs().max())), rank


def test_float16_is_not_trained_in():
    assert training_dtype("float16", CPU.device) == torch.float32
    assert training_dtype("bfloat16", CPU.device) == torch.bfloat16
