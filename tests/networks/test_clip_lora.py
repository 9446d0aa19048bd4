"""CLIP with adapters on both towers: begins as CLIP, learns in both, ships as a plain network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from raysynth.errors import ConfigError
from raysynth.models.clip import load_clip
from raysynth.networks.build import blueprint_of
from raysynth.networks.checks import check_backbone
from raysynth.networks.clip_lora import TEMPLATE
from raysynth.networks.linear import Head
from raysynth.networks.network import Network, build_network
from raysynth.pipeline import stage_digests
from raysynth.training.adamw import AdamW
from raysynth.training.fit import fit
from raysynth.training.two_stage import configured, plan_of
from tests.training.tiny import tiny_config, tiny_data, tiny_groups, tiny_images

SIZE = 32
GROUPS = replace(tiny_groups(), label_words=("pullover", "coat"))
CHOSEN = ("classifier.backbone=clip_lora", "base.dtype=float32")
IMAGES = tiny_images([4] * 4, GROUPS, 1, side=SIZE)


def built(*overrides: str, seed: int = 0) -> Network:
    return build_network(blueprint_of(tiny_config(*CHOSEN, *overrides)), GROUPS, SIZE, seed)


def stepped(network: Network, steps: int = 3) -> None:
    """A few large steps on images of both labels."""
    optimizer = AdamW(network.model, 1e-2, 0.0, steps)
    pixels, label = torch.from_numpy(IMAGES.pixels), torch.from_numpy(IMAGES.label)
    for _ in range(steps):
        network.model.train()
        optimizer.step(torch.nn.functional.cross_entropy(network(pixels)[1], label))
    network.model.eval()


def test_it_begins_as_clip_without_training():
    features, logits = built().outputs(IMAGES)
    clip = load_clip(tiny_config(*CHOSEN).base)
    seen = clip.images(IMAGES.pixels.transpose(0, 2, 3, 1))
    said = clip.texts([TEMPLATE.format(word) for word in GROUPS.label_words])
    np.testing.assert_allclose(features.numpy(), seen, atol=1e-4)
    scale = float(clip.model.logit_scale.exp())
    np.testing.assert_allclose(logits.numpy(), scale * seen @ said.T, atol=2e-2, rtol=1e-3)


def test_adapters_of_both_towers_learn_and_all_else_stays():
    network = built()
    before = network.state()
    stepped(network)
    after = network.state()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key for key in moved if "lora_" not in key} == {"classifier.weight"}
    towers = {key.split(".")[1] for key in moved if "lora_B" in key}
    assert towers == {"text_model", "vision_model"}
    assert sum("lora_B" in key for key in moved) == sum("lora_B" in key for key in before)
    torch.testing.assert_close(after["classifier.weight"], network.model.texts())


def test_a_head_that_was_fitted_stays_and_comes_back():
    network = built()
    stepped(network)
    head = network.current_head()
    features, logits = network.outputs(IMAGES)
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)
    network.set_head(Head(torch.ones_like(head.weight), torch.arange(2.0)))
    expected = network.outputs(IMAGES)[1]
    assert not torch.allclose(expected, logits)
    again = built(seed=1)
    again.load_state(network.state())
    torch.testing.assert_close(again.outputs(IMAGES)[1], expected)


def test_it_is_shipped_as_an_image_tower_under_a_linear_head(tmp_path):
    network = built()
    stepped(network)
    expected = network.outputs(IMAGES)[1]
    network.save_pretrained(str(tmp_path))
    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert not any("lora" in name for name, _ in model.named_parameters())
    pixels = torch.from_numpy(IMAGES.pixels).float()
    with torch.no_grad():
        logits = model(pixel_values=(pixels - network._mean) / network._std).logits
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-2)
    assert model.config.id2label == {0: "a", 1: "b"}


@pytest.mark.parametrize("schedule", ["head", "joint"])
def test_every_schedule_trains_it(schedule):
    config = tiny_config(*CHOSEN, f"classifier.schedule={schedule}", "classifier.steps=4")
    planned = plan_of(configured(config.classifier), config.classifier)
    *_, last = fit(planned, replace(tiny_data(), groups=GROUPS), blueprint_of(config))
    assert np.isfinite(last.best()[1].wga)


def test_what_it_adapts_decides_and_random_weights_are_refused():
    clip, lora = (
        stage_digests(tiny_config(f"classifier.backbone={name}"))["classification"]
        for name in ("clip", "clip_lora")
    )
    assert clip != lora
    for key in ("classifier.start", "references.start"):
        with pytest.raises(ConfigError, match=r"clip_lora: adapts .* scratch; .*Fix: leave"):
            check_backbone(tiny_config(*CHOSEN, f"{key}=scratch"))
    check_backbone(tiny_config(*CHOSEN))
