"""References, controls and head objectives from outside the package, through their rooms."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from raysynth.errors import ConfigError
from raysynth.heads.fit import fit_all
from raysynth.heads.spec import HEAD_OBJECTIVES, HeadSpec
from raysynth.networks.build import blueprint_of
from raysynth.references.control import CONTROLS
from raysynth.references.control_row import run_control
from raysynth.references.reference import REFERENCES
from raysynth.references.settings import ReferencesConfig
from raysynth.references.titles import title_of
from raysynth.references.tuning import tuning_of
from raysynth.training.fit import fit
from tests.references.test_methods import seen_by
from tests.training.tiny import tiny_blueprint, tiny_config, tiny_data, tiny_groups, write_tiny_run

HALF = """
    from raysynth.heads.spec import HeadSpec
    from raysynth.references.reference import Reference, on_real

    PART = Reference(
        "Half the steps",
        "a test",
        lambda config, setting: (on_real(config, setting, steps=config.steps // 2),),
        lambda config: (HeadSpec("nearest"),),
    )
"""
NEAREST = """
    import torch

    from raysynth.heads.judging import judged_by_all
    from raysynth.heads.spec import HeadObjective
    from raysynth.networks.linear import Head


    def _fit(specs, seen):
        x, label = torch.tensor(seen.features.train), torch.tensor(seen.data.train.label)
        means = torch.stack([x[label == k].mean(dim=0) for k in range(seen.classes)])
        head = Head(means, -means.square().sum(dim=1) / 2)
        return judged_by_all(specs, [head] * len(specs), seen)


    PART = HeadObjective("Nearest class mean", "a test", _fit, swept=False)
"""


def test_a_reference_with_a_head_of_its_own_from_outside(add_part):
    add_part("raysynth.references.methods", "half", HALF)
    add_part("raysynth.heads.objectives", "nearest", NEAREST)
    assert "half" in REFERENCES.names and "nearest" in HEAD_OBJECTIVES.names
    config = tiny_config("references.names=[half]")
    plan, _ = tuning_of(["half"], config.references.settled(config.classifier), 1).first
    *_, last = fit(plan, tiny_data(), blueprint_of(config))
    assert last.step == 6 and set(last.validation) == {"nearest"}
    assert title_of("half") == "Half the steps"
    with pytest.raises(ConfigError, match="expected one of balanced, dfr, erm, group_dro"):
        tiny_config("classifier.head_objective=nearest")


def test_a_head_objective_from_outside_is_fitted_with_the_others(add_part):
    add_part("raysynth.heads.objectives", "nearest", NEAREST)
    found = fit_all([HeadSpec("nearest"), HeadSpec("balanced", 0.1)], seen_by())
    assert set(found) == {"nearest", "balanced-0.1"}


def test_a_head_objective_from_outside_may_be_the_methods_own(add_part):
    swept = NEAREST.replace("swept=False", 'schedules=("head",)')
    add_part("raysynth.heads.objectives", "nearest", swept)
    assert tiny_config("classifier.head_objective=nearest").classifier.head_objective == "nearest"
    with pytest.raises(ConfigError, match="full has balanced, erm, group_dro, got nearest"):
        tiny_config("classifier={head_objective: nearest, schedule: full}")


def test_a_mixture_from_outside_is_no_reference(add_part):
    mixture = HALF.replace('lambda config: (HeadSpec("nearest"),),', 'kind="mixture",')
    add_part("raysynth.references.methods", "half", mixture)
    assert tiny_config("classifier.mixtures=[half]").classifier.mixtures == ("half",)
    with pytest.raises(ValidationError, match="got 'half', expected one of dfr_train, "):
        ReferencesConfig(names=("half",))


def test_a_control_from_outside_is_measured(add_part, tmp_path):
    text = """
        from raysynth.references.control import Control


        def _load(blueprint, size, batch):
            return lambda images: images.pixels.mean(axis=(2, 3)).astype("float32")


        PART = Control("Mean colour", "a test", _load)
    """
    add_part("raysynth.references.controls", "colour", text)
    config = tiny_config("references.controls=[colour]")
    assert CONTROLS["colour"].title == title_of("colour") == "Mean colour"
    real = write_tiny_run(str(tmp_path))["real"]
    decays = config.references.head_weight_decays
    row = run_control("colour", tiny_blueprint(), decays, real, tiny_groups(), 64, 1.0)
    assert np.isfinite(row["validation"]["wga"])
