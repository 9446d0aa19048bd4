"""How images become what a model sees, where its folder does not say: as one of transformers'."""

from __future__ import annotations

from collections.abc import Sequence

import transformers
from transformers import BaseImageProcessor


def image_processor(mean: Sequence[float], std: Sequence[float], size: int) -> BaseImageProcessor:
    """Preprocessing with this normalisation: the centre square at `size` x `size` pixels, bicubic.

    It resizes before it crops where `tables.decode_images` crops first: equal but for rounding.
    """
    # The Pillow variant needs no torchvision; older transformers have it under the plain name.
    name = "CLIPImageProcessorPil"
    kind = getattr(transformers, name if hasattr(transformers, name) else "CLIPImageProcessor")
    return kind(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(mean),
        image_std=list(std),
    )
