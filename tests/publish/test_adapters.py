"""Adapters in plain diffusers: kohya's file does what PEFT's does, bit by bit, alpha and all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from raysynth.adapters.grouped_lora import inject
from raysynth.errors import ConfigError
from raysynth.models.family import FAMILIES, USUAL, layers_of
from raysynth.models.sources import EMBEDDED
from raysynth.publish.adapters import export_adapters
from tests.publish.made import make_run, stranger

RANK, ALPHA = 2, 3.0
LOAD = """
import hashlib, json, sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({base!r})
dice = torch.Generator().manual_seed(5)
shape = pipeline.unet.config
x = torch.randn(2, shape.in_channels, 8, 8, generator=dice)
text = torch.randn(2, 24, shape.cross_attention_dim, generator=dice)
def seen():
    with torch.no_grad():
        out = pipeline.unet(x, torch.tensor([50.0, 900.0]), text).sample
    return hashlib.sha256(out.numpy().tobytes()).hexdigest()
told = [seen()]
for file in {files!r}:
    pipeline.load_lora_weights(file)
    told.append(seen())
    pipeline.unload_lora_weights()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose adapter is one of the embedded base."""
    unet = UNet2DConditionModel.from_pretrained(EMBEDDED, subfolder="unet").requires_grad_(False)
    family = FAMILIES[USUAL]
    lora = inject(unet, layers_of(family, ("attention",)), RANK, ALPHA, 1)
    dice = torch.Generator().manual_seed(3)
    lora.reset(0, dice)
    for layer in lora.layers.values():
        layer.B.data.copy_(torch.randn(layer.B.shape, generator=dice) * 0.3)
    folder = tmp_path_factory.mktemp("adapter")
    lora.save(0, str(folder))
    data = (folder / "pytorch_lora_weights.safetensors").read_bytes()
    return make_run(tmp_path_factory.mktemp("runs"), adapter=data)


def test_both_forms_do_the_same_in_plain_diffusers(made, tmp_path):
    run = made
    said = [export_adapters(run.config, str(tmp_path / f), f) for f in ("kohya", "peft")]
    assert said[0] == f"1 adapters (kohya): {tmp_path / 'kohya'}"
    files = [str(tmp_path / "kohya/0-0.safetensors"), str(tmp_path / "peft/0-0")]
    script = LOAD.format(base=str(EMBEDDED), files=files)
    plain, kohya, peft = json.loads(stranger(script)[-1])
    assert kohya == peft != plain
    weights = load_file(files[0])
    assert all(name.startswith("lora_unet_") for name in weights)
    alphas = {float(value) for name, value in weights.items() if name.endswith(".alpha")}
    assert alphas == {ALPHA}, "the converter alone would say the rank"
    card = (tmp_path / "kohya/README.md").read_text()
    assert f"LoRA adapters of `embedded`, rank {RANK}, alpha {ALPHA:g}, one" in card
    assert "| `0-0.safetensors` | a / 1, cluster 0 | 24 | a photo of a sks a |" in card


def test_what_there_is_not_is_refused(made, tmp_path):
    run = made
    with pytest.raises(ConfigError, match="expected kohya or peft"):
        export_adapters(run.config, str(tmp_path / "x"), "onnx")
    with pytest.raises(ConfigError, match="--only: got '7-7'; expected one of 0-0"):
        export_adapters(run.config, str(tmp_path / "x"), only=["7-7"])
    assert not Path(tmp_path, "x").exists()
