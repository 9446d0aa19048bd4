"""Images of a quantised base: mixed adapters as each alone, near those of the whole base."""

from __future__ import annotations

import numpy as np
import pytest

from raysynth.adapters.banks import FOLD_ROWS
from raysynth.models.quantised import QuantisedLinear
from tests.models.test_quantised import FORMS
from tests.synthesis.test_drawing import NAMES, generator, images

NEAR = {"int8": 1.0, "nf4": 12.0}
"""Levels of 255 by which an image may move, in the mean."""


@pytest.mark.parametrize("form", FORMS)
def test_mixed_batches_equal_adapter_by_adapter(make_config, lora_folder, form):
    made = {
        f: generator(
            make_config(base={"quantization": f}, synthesis={"guidance_scale": 3.0}), lora_folder
        )
        for f in ("none", form)
    }
    generate = made[form]
    assert generate.bank.folded is None
    unet = generate.bank.unet
    assert any(isinstance(layer, QuantisedLinear) for layer in unet.modules())
    adapters = [NAMES[i] for i in (0, 2, 1, 1, 0, 2, 2)] + [NAMES[0]] * FOLD_ROWS
    seeds = list(range(len(adapters)))
    mixed = images(generate, adapters, seeds)
    for name in NAMES:
        rows = [row for row, adapter in enumerate(adapters) if adapter == name]
        alone = images(generate, [name] * len(rows), [seeds[row] for row in rows])
        assert np.abs(mixed[rows] - alone).max() <= 1
    whole = images(made["none"], adapters, seeds)
    assert 0 < np.abs(mixed - whole).mean() < NEAR[form]
    wrong = images(generate, [NAMES[1]] * len(seeds), seeds)
    assert np.abs(mixed[0] - wrong[0]).max() > 8, "the adapters must differ for this test to see"
