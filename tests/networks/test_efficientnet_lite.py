"""EfficientNet-Lite0 as a backbone: starts as its weights say, learns, needs its package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from raysynth.errors import ModelError
from raysynth.models import efficientnet_lite
from raysynth.models.encoder import load_encoder
from raysynth.models.settings import LITE
from raysynth.networks.build import blueprint_of
from raysynth.networks.checks import check_backbone
from raysynth.networks.network import Network, build_network
from raysynth.networks.pretrained import EfficientNetLite
from raysynth.training.fit import fit
from raysynth.training.two_stage import configured, plan_of
from tests.training.tiny import SIDE, tiny_config, tiny_data, tiny_groups, tiny_images

CHOSEN = f"classifier.backbone={LITE}"
SCRATCH = ("classifier.start=scratch", "references.start=scratch")


def built(*overrides: str, side: int = SIDE) -> Network:
    return build_network(blueprint_of(tiny_config(CHOSEN, *overrides)), tiny_groups(), side, 0)


def test_it_begins_with_what_the_encoder_sees():
    side = efficientnet_lite.SIDE
    images = tiny_images([1, 0, 0, 1], tiny_groups(), 0, side=side)
    features = built(side=side).outputs(images)[0]
    seen = load_encoder(LITE, tiny_config().base).images(images.pixels.transpose(0, 2, 3, 1))
    own = torch.nn.functional.normalize(features, dim=1).numpy()
    np.testing.assert_allclose(own, seen, atol=1e-4)


def test_saved_it_is_known_to_the_auto_classes_and_brings_one_file_of_code(tmp_path):
    network = built()
    images = tiny_data().validation
    expected = network.outputs(images)[1]
    network.save_pretrained(str(tmp_path))
    assert [file.name for file in tmp_path.glob("*.py")] == ["modeling_efficientnet_lite.py"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert isinstance(model, EfficientNetLite) and network.own
    assert model.config.id2label == {0: "a", 1: "b"} and model.config.image_size == SIDE
    pixels = (torch.from_numpy(images.pixels).float() - 127) / 128
    with torch.no_grad():
        assert torch.allclose(model(pixels).logits, expected, atol=1e-4)


@pytest.mark.parametrize("given", [["classifier.steps=4"], ["classifier.steps=0"]])
def test_it_is_trained_and_left_as_it_is(given):
    config = tiny_config(CHOSEN, *given)
    before = built().state()["conv_stem.weight"]
    planned = plan_of(configured(config.classifier), config.classifier)
    *_, last = fit(planned, tiny_data(), blueprint_of(config))
    assert np.isfinite(last.best()[1].wga)
    after = last.network.state()["conv_stem.weight"]
    assert torch.equal(before, after) == (given == ["classifier.steps=0"])


def test_its_own_start_needs_the_package_and_a_random_one_does_not(monkeypatch):
    check_backbone(tiny_config(CHOSEN))
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "of_another_world")
    check_backbone(tiny_config(CHOSEN, *SCRATCH))
    random, again = (built("classifier.start=scratch").state() for _ in range(2))
    assert all(torch.equal(random[key], again[key]) for key in random)
    for given in ((), SCRATCH[1:]):  # the method itself has its own start still
        with pytest.raises(ModelError, match=r"classifier\.backbone: .*raysynth\[imagenet\]"):
            check_backbone(tiny_config(CHOSEN, *given))
