"""What is computed before the first step."""

from __future__ import annotations

import numpy as np
import torch

from raysynth.finetune.material import encode_images, read_images
from raysynth.models import latents
from raysynth.models.base import load_base


def test_images_are_encoded_as_many_at_once_as_their_size_allows(room, monkeypatch):
    base = load_base(room.config().base, ("vae",))
    pixels = read_images(room.real, ["g0k0n0", "g1k0n2", "g3k0n1"], base.image_size)
    place, flips = np.array([0, 0, 1, 2, 2]), np.array([False, True, False, True, False])
    sizes: list[int] = []
    base.vae.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole = encode_images(base, pixels, place, flips)
    monkeypatch.setattr(latents, "PIXELS_AT_ONCE", 2 * base.image_size**2)
    parts = encode_images(base, pixels, place, flips)
    assert sizes == [5, 2, 2, 1]
    assert torch.allclose(whole.float(), parts.float(), atol=2e-3)
    assert not torch.allclose(whole[0].float(), whole[1].float(), atol=2e-3), "mirrored"
