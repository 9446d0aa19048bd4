"""Images drawn by class alone: what the base is told, what comes out, what it costs and decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raysynth.config.files import load_config
from raysynth.errors import ConfigError, StageError
from raysynth.finetune import entering
from raysynth.grouping import generated
from raysynth.grouping.generated import drawn_images
from raysynth.grouping.method import Passes
from raysynth.grouping.methods.conflict_mining import PART, ConflictMiningKnobs
from raysynth.grouping.stage import run_grouping
from raysynth.groups.groups import Groups
from raysynth.networks.images import ImageSet
from raysynth.pipeline import stage_digests
from raysynth.planning import costs, sizes
from raysynth.planning.grouping_cost import of_grouping
from raysynth.progress import Progress
from raysynth.training.data import load_real
from tests.grouping.test_conflict_mining import SMALL, write_outfits

SYNTHETIC = "grouping.method={name: conflict_mining, biased_on: synthetic, steps: 60, most: 0.4}"
FEW = ConflictMiningKnobs(biased_on="synthetic", base_steps=2, images=6)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Folder of a real table of 400 training images without attributes, and its groups."""
    folder = tmp_path_factory.mktemp("drawn")
    config = load_config(None, [*SMALL, "base.dtype=float32"])
    groups = write_outfits(folder, config, hidden=("train", "validation", "test"))
    return folder, replace(groups, attribute_names=(), attribute_words=()), config


def drawn(table, seed=0, size=None, knobs=FEW) -> ImageSet:
    folder, groups, config = table
    train = load_real(str(folder), "train", size)
    return drawn_images(str(folder), train, groups, config.prompts, config.base, knobs, seed)


def test_as_many_of_each_class_of_the_size_of_the_real_ones(table):
    one = drawn(table)
    assert one.pixels.shape == (6, 3, 32, 32) and one.pixels.dtype == np.uint8
    assert one.label.tolist() == [0, 1] * 3
    assert len({image.tobytes() for image in one.pixels}) == 6 and one.pixels.std() > 10
    again, other = drawn(table, size=24), drawn(table, seed=1)
    assert again.pixels.shape == (6, 3, 24, 24)
    same = np.abs(again.pixels.mean((2, 3)) - one.pixels.mean((2, 3)))
    assert same.max() < 4, "the same images, smaller"
    assert np.abs(other.pixels.astype(int) - one.pixels).max() > 16


def test_the_base_is_told_the_class_and_nothing_else(table):
    folder, groups, config = table
    train = load_real(str(folder), "train", None)
    classes = Groups(groups.label_names, ("",), groups.label_words, ("",))
    job = generated._job(train, classes, config.prompts, FEW)
    assert job.prompts == {0: "a photo of a sks pullover", 1: "a photo of a sks coat"}
    assert job.plain_prompts[1] == "a photo of a coat"
    assert job.groups == tuple(train.label.tolist()) and job.ids == tuple(train.ids.tolist())
    assert (job.steps, job.batch) == (2, 16)


def test_a_base_that_cannot_learn_says_why(table, monkeypatch):
    monkeypatch.setattr(entering, "prepare", _fails)
    with pytest.raises(StageError, match=r"\(ValueError: no\); .* or biased_on: real"):
        drawn(table)


def _fails(*given):
    raise ValueError("no")


def test_what_it_decides_and_costs():
    real = load_config(None, ["grouping.method=conflict_mining"])
    other = load_config(None, ["grouping.method={name: conflict_mining, biased_on: synthetic}"])
    assert set(PART.decided_by(other)) - set(PART.decided_by(real)) == {"base", "token"}
    token = load_config(None, ["grouping.method=conflict_mining", "prompts.token=abc"])
    assert stage_digests(token)["grouping"] == stage_digests(real)["grouping"]
    knobs = ConflictMiningKnobs(biased_on="synthetic", guidance_scale=2.0)
    assert PART.passes(knobs, 2, 100) == Passes(240 * 16, 1000 * 2 * 6, adapters=True)
    assert PART.passes(ConflictMiningKnobs(), 2, 100) == Passes()
    shape = sizes.base_shape(other, [])
    images = sizes.Images({"train": 10, "validation": 2, "test": 2}, 4, 8, 6, 32, 32, 32)
    sized = costs.Sized(images, shape, {}, {})
    cost = costs.training_cost(costs.LORA, other.finetune, shape)
    asked = of_grouping(other, sized).flops
    assert asked["grouping"] == 240 * 16 * cost.training + 12000 * cost.forward
    assert "grouping" not in of_grouping(real, sized).flops


def test_values_out_of_bounds_are_refused():
    for given in ("biased_on: both", "images: 1", "guidance_scale: -1", "base_steps: 0"):
        with pytest.raises(ConfigError):
            load_config(None, [f"grouping.method={{name: conflict_mining, {given}}}"])


@pytest.mark.slow
def test_groups_are_found_by_a_network_that_saw_no_real_image(tmp_path, ray_local):
    config = load_config(None, [*SMALL[:-1], SYNTHETIC])
    groups = write_outfits(tmp_path / "real", config)
    facts = run_grouping(config, f"{tmp_path}/real", groups, f"{tmp_path}/work", Progress())
    assert Groups.from_dict(facts["groups"]).attribute_names == ("grass", "gravel")
    for name in ("pullover/gravel", "coat/grass"):  # 20 images each
        assert facts["found"]["own"][name].get(name, 0) >= 16
