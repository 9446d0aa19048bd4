"""Shipped folders load to the same numbers: version 0.1's, and in a process without raysynth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raysynth.models.settings import LITE
from raysynth.networks.network import build_network
from tests.training.tiny import SIDE, tiny_blueprint, tiny_groups, tiny_images

CONFIG = {
    "architectures": ["SmallResNet"],
    "dtype": "float32",
    "id2label": {"0": "a", "1": "b"},
    "image_size": 12,
    "label2id": {"a": 0, "b": 1},
    "model_type": "raysynth_resnet",
    "num_channels": 3,
    "widths": [8, 16],
}
"""As it was written."""
OF_NORM = ("weight", "bias", "running_mean", "running_var")
CONVOLUTIONS = {
    "stem": (8, 3, 3, 3),
    "blocks.0.convolution1": (8, 8, 3, 3),
    "blocks.0.convolution2": (8, 8, 3, 3),
    "blocks.1.convolution1": (16, 8, 3, 3),
    "blocks.1.convolution2": (16, 16, 3, 3),
    "blocks.1.shortcut": (16, 8, 1, 1),
}
NORMS = {"norm": 8, "blocks.0.norm1": 8, "blocks.0.norm2": 8} | {
    f"blocks.1.norm{n}": 16 for n in (1, 2)
}
LOGITS = [[-46076.84375, 5578.935546875], [-40355.890625, 7740.392578125]]
"""Version 0.1's, of the weights and images below."""


def shipped(folder: Path) -> Path:
    """A folder as version 0.1 saved it, its weights drawn here."""
    rng, weights = np.random.default_rng(0), {}
    shapes = {f"{name}.weight": shape for name, shape in CONVOLUTIONS.items()}
    shapes |= {"classifier.weight": (2, 16), "classifier.bias": (2,)}
    for name, width in NORMS.items():
        shapes |= {f"{name}.{kind}": (width,) for kind in OF_NORM}
        weights[f"network.{name}.num_batches_tracked"] = torch.tensor(3)
    for name, shape in sorted(shapes.items()):
        drawn = np.abs(rng.normal(size=shape)) if "running_var" in name else rng.normal(size=shape)
        weights[f"network.{name}"] = torch.tensor(drawn, dtype=torch.float32)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.parametrize("module", ["raysynth.classify.pretrained", "raysynth.networks.pretrained"])
def test_a_folder_of_version_01_loads_as_its_card_says(tmp_path, module):
    script = f"""
import json, numpy, torch
import {module}
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained({str(shipped(tmp_path / "model"))!r}).eval()
pixels = numpy.random.default_rng(1).uniform(-1, 1, (2, 3, 12, 12))
with torch.no_grad():
    print(json.dumps(model(torch.tensor(pixels, dtype=torch.float32)).logits.tolist()))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    np.testing.assert_allclose(json.loads(found.stdout.splitlines()[-1]), LOGITS, rtol=1e-4)


STRANGER = """
import json, sys
import numpy as np, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
folder = sys.argv[1]
image = Image.fromarray(np.load(sys.argv[2]))
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(folder)
with torch.no_grad():
    logits = model(**processor(image, return_tensors="pt")).logits[0]
found = pipeline("image-classification", model=folder, trust_remote_code=True)(image)
assert not any(name.split(".")[0] == "raysynth" for name in sys.modules)
print(json.dumps([logits.tolist(), {each["label"]: each["score"] for each in found}]))
"""


@pytest.mark.parametrize("backbone", ["small", "clip", LITE])
def test_who_has_never_heard_of_raysynth_loads_it_and_sees_the_same(tmp_path, backbone):
    side = SIDE if backbone == "small" else 32
    blueprint = tiny_blueprint(f"classifier.backbone={backbone}")
    network = build_network(blueprint, tiny_groups(), side, 0)
    network.save_pretrained(str(tmp_path / "model"))
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    images = tiny_images([1, 0, 0, 0], tiny_groups(), 0, side=side)
    images = replace(images, pixels=image[None].transpose(0, 3, 1, 2))
    own = network.outputs(images)[1][0]
    hidden = tmp_path / "elsewhere"  # neither an installed raysynth nor one beside it is found
    (hidden / "raysynth").mkdir(parents=True)
    (hidden / "raysynth" / "__init__.py").write_text("raise ImportError('it is not there')")
    found = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tmp_path / "model"), str(tmp_path / "image.npy")],
        capture_output=True,
        text=True,
        cwd=hidden,
        env=os.environ | {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(hidden)},
    )
    assert found.returncode == 0, found.stderr
    logits, scores = json.loads(found.stdout.splitlines()[-1])
    np.testing.assert_allclose(logits, own.tolist(), atol=2e-3)
    chances = torch.tensor(logits).softmax(0).tolist()
    assert scores == pytest.approx(dict(zip(network.label_names, chances, strict=True)), abs=1e-3)
