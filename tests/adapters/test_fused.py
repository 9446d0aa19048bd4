"""Adapters that images are drawn with together: equal to diffusers' weighted adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysynth.adapters.banks import LoraBank
from raysynth.adapters.fused import drawn_name, fused_name, is_fused, weights_of
from raysynth.models.base import load_base
from tests.adapters.test_grouped_lora import ALL, inputs, load_unet, pipeline_of, random_lora

MIXED = ({0: 0.25, 2: 0.75}, {1: 1.0, 0: 0.0}, {2: 0.5, 1: 0.5})


@pytest.mark.parametrize("targets", [("attention",), ALL])
def test_fused_rows_equal_adapters_that_diffusers_weighs(room, tmp_path, targets):
    unet = load_unet(room)
    lora = random_lora(unet, 3, targets)
    for position in range(3):
        lora.save(position, str(tmp_path / str(position)))
    x, t, text = inputs(len(MIXED))
    lora.fuse(MIXED)
    with torch.no_grad():
        ours = unet(x, t, text).sample
        for row, weights in enumerate(MIXED):
            pipeline = pipeline_of(room)
            one = (x[row : row + 1], t[row : row + 1], text[row : row + 1])
            plain = pipeline.unet(*one).sample
            for position in range(3):
                pipeline.load_lora_weights(
                    str(tmp_path / str(position)), adapter_name=f"a{position}"
                )
            pipeline.set_adapters([f"a{p}" for p in weights], list(weights.values()))
            theirs = pipeline.unet(*one).sample
            assert (theirs - plain).abs().max() > 0.01
            torch.testing.assert_close(ours[row : row + 1], theirs, rtol=1e-4, atol=1e-5)


def test_a_row_is_the_same_whatever_it_is_drawn_beside(room, tmp_path):
    base = load_base(room.config().base)
    lora = random_lora(base.network, 3)
    bank = LoraBank(base.network, lora, ["a", "b", "c"])
    names = [fused_name({"a": 0.3, "b": 0.7}), "c", fused_name({"b": 0.5, "c": 0.2, "a": 0.3})]
    x, t, text = inputs(3)
    assert [part.tolist() for part in bank.parts(names)] == [[0, 1, 2]]
    with torch.no_grad():
        together = bank.use(names, 1)(x, t, text).sample
        for row, name in enumerate(names):
            one = (x[row : row + 1], t[row : row + 1], text[row : row + 1])
            alone = bank.use([name], 1)(*one).sample
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        doubled = bank.use(names, 2)(*(torch.cat([given, given]) for given in (x, t, text))).sample
    torch.testing.assert_close(doubled[3:], together, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_is_not_there_is_refused(room):
    lora = random_lora(load_unet(room), 2)
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        lora.fuse([{0: 0.5, 2: 0.5}])


def test_mixtures_are_drawn_by_the_seed_and_said_by_their_names():
    names = [f"0-{n}" for n in range(6)]
    drawn = [drawn_name(names, 3, seed) for seed in range(200)]
    assert drawn == [drawn_name(names, 3, seed) for seed in range(200)]
    weights = [weights_of(name) for name in drawn]
    assert all(len(each) == 3 and abs(sum(each.values()) - 1) < 1e-9 for each in weights)
    used = np.array([[each.get(name, 0.0) for name in names] for each in weights])
    assert (used.mean(0) > 0.1).all() and len(set(drawn)) > 195
    assert drawn_name(["0-0"], 2, 5) == "0-0" and not is_fused("0-0")
    assert weights_of("0-0") == {"0-0": 1.0}
