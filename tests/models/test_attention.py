"""The attention kernel: as asked for, or the one measured faster; results agree."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from raysynth.models import attention
from raysynth.models.attention import PROCESSORS, pick_attention
from raysynth.models.base import load_base
from raysynth.models.settings import BaseConfigSection


@pytest.fixture(scope="module")
def base():
    return load_base(BaseConfigSection(device="cpu", dtype="float32"), ("model",))


def kernels(base):
    return {type(m.processor) for m in base.model.modules() if isinstance(m, Attention)}


@pytest.mark.parametrize(("asked", "kind"), [("plain", AttnProcessor), ("sdpa", AttnProcessor2_0)])
def test_what_is_asked_for_is_taken(base, asked, kind):
    assert pick_attention(base, asked, 4, backward=True) == asked
    assert kernels(base) == {kind}


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"plain": 2.0, "sdpa": 1.0}, "sdpa"),
        ({"plain": 1.0, "sdpa": 2.0}, "plain"),
        ({"plain": 1.2, "sdpa": 1.0}, "plain"),  # within the noise: as usual on a CPU
    ],
)
def test_auto_takes_the_faster_by_a_margin(base, monkeypatch, seconds, chosen):
    monkeypatch.setattr(attention, "_seconds", lambda _, name, *rest: seconds[name])
    assert pick_attention(base, "auto", 4, backward=True) == chosen
    assert kernels(base) == {type(PROCESSORS[chosen]())}


def test_measuring_runs_both_kernels_and_they_agree(base):
    assert pick_attention(base, "auto", 4, backward=True) in PROCESSORS
    x, text = torch.randn(2, *base.latent_shape), torch.randn(2, 24, 64)
    outputs = []
    for name in PROCESSORS:
        pick_attention(base, name, 2, backward=False)
        with torch.no_grad():
            outputs.append(base.model(x, 500, text).sample)
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)
