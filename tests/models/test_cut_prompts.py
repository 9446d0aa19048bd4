"""Prompts longer than a base reads: refused, or cut where they are captions, in every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raysynth.errors import ConfigError
from raysynth.models.base import load_base
from raysynth.models.settings import BaseConfigSection
from tests.models.random_families import WRITERS, write_family

WORDS = "coat on grass "


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("name", tuple(WRITERS))
def test_a_base_that_cuts_reads_the_beginning(name, live, tmp_path):
    folder = write_family(name, tmp_path / name)
    given = BaseConfigSection(name=str(folder), device="cpu", dtype="float32", attention="sdpa")
    base = replace(load_base(given, ("text",)), live=live)
    limit, family = base.shape.tokens, base.family
    long, other = (f"a photo of a {WORDS * limit}{end}" for end in ("sks", "gravel"))
    tokenizers = [part for part in family.roles["text"] if "tokenizer" in part]
    for part in tokenizers:
        short, longer = family.lengths(base.parts[part], ["a coat", long])
        assert short < limit < longer
    with pytest.raises(ConfigError, match="tokens long"):
        base.condition([long])
    cutting = replace(base, cuts=True)
    told = cutting.condition([long, other, "a coat"])
    plain = base.condition(["a coat"])
    for key, tensor in told.tensors.items():
        assert torch.equal(tensor[0], tensor[1]), f"{key}: what is behind the limit is not read"
        assert tensor.ndim < 2 or tensor.shape[1] <= max(limit, tensor.shape[-1])
    assert any(not torch.equal(tensor[0], tensor[2]) for tensor in told.tensors.values())
    for key, tensor in cutting.condition(["a coat"]).tensors.items():
        assert torch.equal(tensor, plain[key]), "what fits is as it was"
