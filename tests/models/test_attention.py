"""The attention kernel: as asked for, or by device and size alone; results agree."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from raysynth.models.attention import LONG, PROCESSORS, fitting, use_attention
from raysynth.models.base import load_base
from raysynth.models.settings import BaseConfigSection


def load(**given):
    return load_base(BaseConfigSection(device="cpu", dtype="float32", **given), ("model",))


def kernels(part):
    return {type(m.processor) for m in part.modules() if isinstance(m, Attention)}


@pytest.mark.parametrize(
    ("asked", "kind"),
    [("plain", AttnProcessor), ("sdpa", AttnProcessor2_0), ("auto", AttnProcessor)],
)
def test_what_is_asked_for_is_taken_and_auto_is_plain_for_tiny_latents_on_a_cpu(asked, kind):
    assert kernels(load(attention=asked).model) == {kind}


def test_auto_is_decided_by_device_and_size_alone():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert fitting("auto", cpu, LONG - 1) == "plain"
    assert fitting("auto", cpu, LONG) == "sdpa" == fitting("auto", cuda, 16)
    assert fitting("plain", cuda, 4096) == "plain" and fitting("sdpa", cpu, 4) == "sdpa"


def test_kernels_agree():
    base = load()
    x, text = torch.randn(2, *base.latent_shape), torch.randn(2, 24, 64)
    outputs = []
    for name in PROCESSORS:
        use_attention(base.model, name, base.device, 1)
        with torch.no_grad():
            outputs.append(base.model(x, 500, text).sample)
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


def test_a_part_without_attention_stays_as_it_is():
    use_attention(torch.nn.Linear(2, 2), "plain", torch.device("cpu"), 1)
    use_attention(None, "plain", torch.device("cpu"), 1)
