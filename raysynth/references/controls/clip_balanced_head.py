"""The base's CLIP: a balanced logistic head on its image embeddings.

The image tower that selection scores with, frozen: what it knows reaches the synthetic images
through selection, and needs none of them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysynth.references.control import Control, Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raysynth.networks.build import Blueprint
    from raysynth.networks.images import ImageSet


def _load(blueprint: Blueprint, size: int, batch: int) -> Embedder:
    # Here, not above: transformers and diffusers take seconds of every process.
    from raysynth.models.clip import load_clip, of_planes

    clip = load_clip(blueprint.base)

    def embed(images: ImageSet) -> NDArray[np.float32]:
        return of_planes(clip.images, images.pixels, batch)

    return embed


PART = Control(
    "Base's CLIP + balanced head",
    "linear probe (Radford et al. 2021, arXiv 2103.00020, section 3.2), groups weighted equally",
    _load,
    uses_clip=True,
    whose="the base model's CLIP",
)
