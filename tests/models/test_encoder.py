"""Vision encoders by folder: what is taken for an image's vector, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raysynth.errors import ModelError
from raysynth.models.encoder import load_encoder
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_encoder
from tests.synthesis.random_models import write_clip, write_encoder

BASE = BaseConfigSection(device="cpu", dtype="float32")


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 48, 40, 3), np.uint8)


def vectors(folder: Path, images: np.ndarray) -> np.ndarray:
    return load_encoder(str(folder), BASE).images(images)


@pytest.mark.parametrize("kind", ["dinov2", "vit", "vit_mae", "resnet", "swin", "clip"])
def test_any_vision_model_gives_one_unit_vector_per_image(tmp_path, kind):
    folder = write_clip(tmp_path) if kind == "clip" else write_encoder(tmp_path, kind)
    found = vectors(folder, pixels(3))
    assert found.shape == (3, 16 if kind in ("clip", "resnet", "swin") else 32)
    assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(found, vectors(folder, pixels(3)), atol=1e-5)
    assert np.allclose(found[1], vectors(folder, pixels(3)[1:2])[0], atol=1e-5)


def test_a_missing_pooler_does_not_count(tmp_path):
    from transformers import ViTModel

    folder = write_encoder(tmp_path, "vit")
    first = vectors(folder, pixels(2))
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    model.save_pretrained(folder)  # as DINO's ViTs are published: without a pooler
    assert np.allclose(vectors(folder, pixels(2)), first, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip_vision_model"])
def test_the_class_token_counts(tmp_path, kind):
    folder = write_encoder(tmp_path, kind)
    encoder = load_encoder(str(folder), BASE)
    inputs = encoder.processor(images=list(pixels(2)), return_tensors="pt")
    with torch.inference_mode():
        token = encoder.model(**inputs).last_hidden_state[:, 0]
    expected = torch.nn.functional.normalize(token, dim=-1).numpy()
    assert np.allclose(vectors(folder, pixels(2)), expected, atol=1e-5)


def test_folders_without_a_model_are_refused(tmp_path):
    check_encoder("clip")
    check_encoder("facebook/dinov2-small")
    for name in (str(tmp_path), "/nowhere/dino", "./nowhere", "dinov2"):
        with pytest.raises(ModelError, match=r"clustering\.encoder: .* lacks config\.json.*Fix"):
            check_encoder(name)
    (write_encoder(tmp_path, "vit") / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"clustering\.encoder cannot be loaded"):
        load_encoder(str(tmp_path), BASE)
