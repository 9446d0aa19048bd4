"""An objective is one file, here or in another package: its rows, its passes, its loss."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from raysynth.config.files import load_config
from raysynth.errors import ConfigError
from raysynth.finetune.memory import rows_of
from raysynth.finetune.packs import passes_of
from raysynth.finetune.settings import OBJECTIVES
from raysynth.finetune.training import train_pack
from raysynth.generators.inputs import training_inputs
from raysynth.generators.recipe import recipe_of
from raysynth.planning.costs import rows_per_image

FILE = "pytorch_lora_weights.safetensors"
APART = """
    from dataclasses import replace

    import torch

    from raysynth.finetune.draws import dice_of
    from raysynth.knobs import Section, knob
    from raysynth.models.condition import Condition


    class Apart:
        title, source = "what is said matters", "a paper"

        class Knobs(Section):
            weight: float = knob(0.5, "Of the difference that words make.")

        def passes(self, knobs):
            return 2

        def extra(self, material, job, base, seed, knobs):
            said = base.condition(["a dress", "a shirt"])
            drawn = dice_of(job, seed, "apart").integers(0, 2, material.spoken.shape)
            other = torch.from_numpy(drawn).to(base.device) + len(material.texts)
            texts = Condition.cat([material.texts, said])
            return replace(material, texts=texts, also={"other": other})

        def losses(self, batch, denoise, knobs):
            own = denoise(batch.x, batch.timestep, batch.condition)
            other = denoise(batch.x, batch.timestep, batch.also["other"])
            error = (own.raw - batch.target).square()
            return (error + knobs.weight * (own.clean - other.clean).square()).flatten(1).mean(1)


    PART = Apart()
"""


@pytest.fixture
def apart(add_part):
    add_part(OBJECTIVES.package, "apart", APART)


def quiet(done, failed, fit="", **more):
    pass


def test_every_part_says_what_it_is():
    for name in OBJECTIVES:
        part = OBJECTIVES[name]
        assert part.title and part.source and part.passes(part.Knobs()) >= 1


def weights(room, tmp_path, work, names=None, **finetune):
    """The weights of group 3's adapter, trained in a pack with `names`."""
    config = room.config(learning_rate=1e-2, **finetune)
    assert train_pack(room.pack(config, tmp_path / work, names), quiet) == {}
    return load_file(tmp_path / work / "3-0" / FILE)


@pytest.mark.parametrize("more", [{}, {"prior_weight": 1.0, "prior_images": 3, "patience": 1}])
def test_an_objective_of_another_package_trains(apart, room, tmp_path, more):
    one = {"name": "apart", "weight": 9.0}
    packed = weights(room, tmp_path, "packed", objective=one, **more)
    alone = weights(room, tmp_path, "alone", ["3-0"], objective=one, **more)
    plain = weights(room, tmp_path, "plain", ["3-0"], **more)
    for key, tensor in packed.items():
        torch.testing.assert_close(tensor, alone[key], rtol=1e-2, atol=2e-3)
    assert any((packed[key] - plain[key]).abs().max() > 1e-3 for key in packed)


def test_its_passes_are_counted_where_memory_and_costs_are(apart, room, tmp_path):
    passes = {}
    for name in ("denoising", "apart"):
        config = room.config(objective=name, prior_weight=1.0)
        pack = room.pack(config, tmp_path)
        training = recipe_of(config).training
        passes[name] = passes_of(training, config.finetune)
        assert rows_of(pack.jobs[0], pack) == pack.jobs[0].batch * passes[name]
        assert rows_per_image(training, config.finetune) == passes[name]
    assert passes == {"denoising": 2, "apart": 4}


def test_it_and_its_knobs_decide_what_is_made(apart):
    def inputs(*overrides):
        return training_inputs(load_config(None, overrides))

    named = inputs("finetune.objective=apart")
    weighed = inputs("finetune.objective={name: apart, weight: 2.0}")
    assert inputs() == inputs("finetune.objective=denoising"), "what earlier versions did"
    assert len({str(each) for each in (inputs(), named, weighed)}) == 3
    with pytest.raises(ConfigError, match=r"Did you mean 'apart'\?"):
        inputs("finetune.objective=appart")
    with pytest.raises(ConfigError, match="wait"):
        inputs("finetune.objective={name: apart, wait: 2.0}")
