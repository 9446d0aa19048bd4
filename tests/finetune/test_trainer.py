"""On one machine Ray Train starts no actors that clean up after it or read data sets."""

from __future__ import annotations

import pytest

from raysynth.finetune.trainer import SPARED, trainer_kind


@pytest.mark.parametrize("local", [True, False])
def test_a_local_trainer_spares_callbacks_that_ray_still_has(local, tmp_path):
    trainer = trainer_kind(local=local)(print, scaling_config=None, datasets={})
    names = {type(each).__name__ for each in trainer._create_default_callbacks()}
    assert {"AcceleratorSetupCallback", "BackendSetupCallback"} <= names
    assert names.isdisjoint(SPARED) is local
    assert local or {*SPARED} <= names
