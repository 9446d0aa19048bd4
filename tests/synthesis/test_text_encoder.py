"""Images of adapters that are on the text encoder too: as diffusers reads them, in any batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from raysynth.adapters.banks import LoraBank
from raysynth.adapters.grouped_lora import inject
from raysynth.models.base import load_base
from raysynth.models.family import layers_of
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.solver import build_solver
from raysynth.synthesis.task import Drawing
from tests.synthesis.test_drawing import PROMPT, images, pipeline_images

NAMES = ("0-0", "0-1", "3-0")
TUNED = {"rank": 2, "alpha": 2.0, "text_encoder": True}
FORMS = {"lora": {}, "dora": {"dora": True, "rslora": True, "overrides": {"0-1": {"rank": 3}}}}
DRAWN = {"steps": 3, "guidance_scale": 4.0}


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS.keys())
def tuned(request) -> dict[str, Any]:
    return TUNED | request.param


@pytest.fixture(scope="module")
def folder(make_config, tmp_path_factory, tuned) -> str:
    """Three adapters of strong, different effect on both parts."""
    config = make_config(finetune=tuned)
    dora, rank = "dora" in tuned, config.finetune.most_rank
    base = replace(load_base(config.base, ("model", "text")), live=True)
    targets = layers_of(base.family, config.finetune.targets) | base.family.text_targets
    lora = inject(base.network, targets, rank, 2.0, 3, prefix="", dora=dora, rslora=dora)
    torch.manual_seed(5)
    for name, layer in lora.layers.items():
        strength = 0.6 if name.startswith("text") else 0.2
        for matrix in (layer.A, layer.B):
            matrix.data = torch.randn_like(matrix) * strength
        if layer.M is not None:
            lengths = torch.stack([layer.lengths_of(position) for position in range(3)])
            layer.M.data = lengths * (1 + strength * torch.randn_like(lengths))
    found = str(tmp_path_factory.mktemp("text"))
    for number, name in enumerate(NAMES):
        lora.save(number, f"{found}/{name}")
    return found


def test_images_are_those_of_diffusers_pipeline(make_config, folder, tuned):
    config = make_config(finetune=tuned, synthesis=DRAWN)
    pipe = StableDiffusionPipeline.from_pretrained(config.base.name, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_solver("dpmsolver++", pipe.scheduler)
    plain = _states(pipe)
    pipe.load_lora_weights(f"{folder}/0-1")
    assert (_states(pipe) - plain).abs().max() > 0.1, "the text encoder's part is read"
    expected = pipeline_images(pipe, [5, 6])
    generate = ImageGenerator(Drawing.of(config), folder, NAMES)
    got = images(generate, ["0-1"] * 2, [5, 6])
    assert np.abs(got - expected).max() <= 1


def _states(pipe: StableDiffusionPipeline) -> torch.Tensor:
    with torch.no_grad():
        return pipe.text_encoder(pipe.tokenizer(PROMPT, return_tensors="pt")["input_ids"])[0]


def test_mixed_batches_are_those_of_each_adapter_alone(make_config, folder, tuned):
    config = make_config(finetune=tuned, synthesis=DRAWN)
    generate = ImageGenerator(Drawing.of(config), folder, NAMES)
    assert isinstance(generate.bank, LoraBank) and generate.base.live
    together = images(generate, [*NAMES, *NAMES], list(range(6)))
    for row, name in enumerate((*NAMES, *NAMES)):
        alone = images(generate, [name], [row])
        assert np.abs(alone[0].astype(int) - together[row]).max() <= 1
    assert np.abs(together[0].astype(int) - together[3]).max() > 1


def test_the_base_alone_reads_prompts_once(make_config):
    config = make_config(generator="vanilla", synthesis=DRAWN)
    generate = ImageGenerator(Drawing.of(config), "", ())
    assert not generate.base.live and "states" in generate._text([PROMPT]).tensors
