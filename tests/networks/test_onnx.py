"""ONNX: one file for any batch, to the same numbers, with all that a reader needs besides."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest

from raysynth.errors import ConfigError
from raysynth.models.settings import LITE
from raysynth.networks import onnx
from raysynth.networks.network import build_network
from tests.publish.made import stranger
from tests.training.tiny import SIDE, tiny_blueprint, tiny_groups, tiny_images

STRANGER = """
import json, sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession({model!r})
told = {{k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}}
mean, std = (np.reshape(told[name], (1, 3, 1, 1)) for name in ("mean", "std"))
pixels = ((np.load({pixels!r}) / 255 - mean) / std).astype(np.float32)
print(json.dumps(session.run(None, {{"pixel_values": pixels}})[0].tolist()))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.mark.parametrize("backbone", ["small", "clip", LITE])
def test_another_runtime_sees_what_torch_sees(tmp_path, backbone):
    side = SIDE if backbone == "small" else 32
    given = ("classifier.precision=float32", f"classifier.backbone={backbone}")
    network = build_network(tiny_blueprint(*given), tiny_groups(), side, 0)
    images = tiny_images([2, 1, 1, 1], tiny_groups(), 0, side=side)
    own = network.outputs(images)[1].numpy()
    path = onnx.write_onnx(network, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    told = {
        name: json.loads(value)
        for name, value in session.get_modelmeta().custom_metadata_map.items()
    }
    assert told["labels"] == list(network.label_names) and told["size"] == side
    mean, std = (np.reshape(told[name], (1, 3, 1, 1)) for name in ("mean", "std"))
    for rows in (slice(0, 1), slice(0, 5)):
        pixels = ((images.pixels[rows] / 255 - mean) / std).astype(np.float32)
        (logits,) = session.run(None, {"pixel_values": pixels})
        np.testing.assert_allclose(logits, own[rows], atol=2e-5)
    np.save(tmp_path / "pixels.npy", images.pixels)
    said = stranger(STRANGER.format(model=str(path), pixels=str(tmp_path / "pixels.npy")))
    np.testing.assert_allclose(json.loads(said[-1]), own, atol=2e-5)


def test_without_its_packages_it_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "of_another_world"))
    with pytest.raises(ConfigError, match=r"of_another_world not installed.*raysynth\[onnx\]"):
        onnx.check_onnx()
