"""A network that knows ImageNet: a balanced logistic head on its features.

What a usual start is worth by itself, without the base and its images. Photographs are enlarged or
reduced to the side that it was trained on (docs/decisions/090-imagenet.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysynth.models.efficientnet_lite import FLOPS, check_lite
from raysynth.models.settings import LITE
from raysynth.references.control import Control, Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raysynth.networks.build import Blueprint
    from raysynth.networks.images import ImageSet

KEY = "references.controls"


def _load(blueprint: Blueprint, size: int, batch: int) -> Embedder:
    # Here, not above: torch and transformers take seconds of every process.
    from raysynth.models.clip import of_planes
    from raysynth.models.encoder import load_encoder

    encoder = load_encoder(LITE, blueprint.base, what=KEY)

    def embed(images: ImageSet) -> NDArray[np.float32]:
        return of_planes(encoder.images, images.pixels, batch)

    return embed


def _needs() -> None:
    check_lite(KEY)


PART = Control(
    "ImageNet's features + balanced head",
    "linear probe of EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946), groups weighted "
    "equally",
    _load,
    needs=_needs,
    backbone=LITE,
    whose="a network trained on ImageNet",
    flops=FLOPS,
)
