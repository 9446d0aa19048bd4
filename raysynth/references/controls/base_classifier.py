"""The base's labelled images: a network trained on them, and a balanced head on the real images.

What the generator could have told, had its own training images and labels been at hand: all ten
garments, the pair's two included, in the base's look (docs/tiny-base.md). The weights are shipped;
`pretraining.network` trains them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysynth.datasets.garments import CLASSES
from raysynth.datasets.settings import DatasetConfig
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.build import Blueprint
from raysynth.networks.images import ImageSet
from raysynth.networks.settings import SMALL
from raysynth.references.control import Control, Embedder


def _load(blueprint: Blueprint, size: int, batch: int) -> Embedder:
    # Here, not above: the configuration names controls, and needs no torch.
    from raysynth.networks.network import Network
    from raysynth.networks.settings import EMBEDDED_WIDTHS
    from raysynth.networks.small import SmallNetwork, load_embedded

    model = SmallNetwork(EMBEDDED_WIDTHS, 3, len(CLASSES))
    load_embedded(model, "all_garments")
    network = Network(model, blueprint.with_backbone(SMALL), CLASSES, size)

    def embed(images: ImageSet) -> NDArray[np.float32]:
        return network.outputs(images)[0].cpu().numpy()

    return embed


def _check(base: BaseConfigSection, dataset: DatasetConfig) -> None:
    if base.name != "embedded" or not dataset.garments:
        raise ValueError(
            "references.controls: base_classifier needs base.name=embedded and "
            "dataset.name=outfits, whose labelled pretraining images are known"
        )


PART = Control(
    "Base's labelled images + balanced head",
    "ours: the small network on the tiny base's pretraining images and their garment labels",
    _load,
    check=_check,
)
